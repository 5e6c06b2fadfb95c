"""Speech recognition by an encoder with CTC: Wav2Vec2, HuBERT, WavLM, MMS and similar models, through transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.data.media import RATE_HZ
from mlflow_compress.data.transcribed import factor_over, how_long_ones_are_heard, transcribed, unscored
from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.model import SCORING
from mlflow_compress.networks.class_scores import best_classes, lacks_number
from mlflow_compress.networks.ctc_text import text_of, tokenizer_of_letters
from mlflow_compress.networks.export_graphs import Attached, Calls, graph
from mlflow_compress.networks.hub import Origin, config_fields
from mlflow_compress.networks.sound_windows import SHARE, windows
from mlflow_compress.networks.text_inputs import require_pass, vocabulary
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_tokenizer,
    load_transformer,
)
from mlflow_compress.sockets import Graph, Mark, Model, Sample

_INPUTS = ("input_values", "input_features")
_SHORTEST = RATE_HZ // 10  # samples that give at least one frame; shorter sounds are padded with silence
_AUTO = "auto"
_HEAD = ("lm_head.weight", "lm_head.bias")  # replaced by those of an adapter


@dataclass
class AsrCtc(TransformersFamily):
    """A transformers encoder of speech that scores the tokens of each frame (CTC), decoded greedily.

    Source: Graves et al., Connectionist temporal classification, ICML 2006; long sounds: see `sound_windows`.

    Attributes:
        seconds: length of the timed sound, in seconds.
        window_seconds: longest sound that the model takes at once in predicting and scoring, in seconds; a longer one
            is cut into overlapping windows.
        language: the language of an adapter, as the model names it (MMS: ISO 639-3, `rus`); auto: the one in the
            checkpoint.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
    """

    auto_class: ClassVar[str] = "AutoModelForCTC"
    pipeline: ClassVar[str] = "automatic-speech-recognition"
    keeps: ClassVar[tuple[str, ...]] = ("features", "tokenizer")
    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "the model's features of 16 kHz audio (normalised samples or log-mel), and one forward pass to the scores "
        "[batch, frames, tokens]; reading the text from the scores (postprocess) is timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("wer", "cer", "wer_normalized", "cer_normalized")
    gives: ClassVar[tuple[str, ...]] = ("texts",)
    flexible_axes: ClassVar[tuple[int, ...]] = (0,)

    seconds: Annotated[int, Ge(1)] = 10
    window_seconds: Annotated[int, Ge(2)] = 30
    language: str = _AUTO
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the recogniser, its feature extractor and its tokenizer (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        adapter: dict[str, Any] = {}
        if self.language != _AUTO and origin.kind != "random":
            if not config_fields(origin.source).get("adapter_attn_dim"):
                raise RecipeError(f"{source} has no adapters for languages: leave out language.")
            adapter = {"target_lang": self.language, "ignore_mismatched_sizes": True}
        model = load_transformer(
            self.auto_class,
            source,
            origin,
            self.architecture,
            seed,
            self.precision,
            arguments=adapter,
            replaced=_HEAD if adapter else (),
        )
        model.family_data = Companions(
            features=_feature_extractor(model, origin),
            tokenizer=self._tokenizer(model, origin),
            code=origin.code,
        )
        require_pass(model, lambda: self._require_scores(model), "sounds alone")
        return model

    def _tokenizer(self, model: Model, origin: Origin) -> Any:
        if origin.kind == "random":
            return tokenizer_of_letters(vocabulary(model), model.config.pad_token_id)
        return load_tokenizer(origin, **({} if self.language == _AUTO else {"target_lang": self.language}))

    def _require_scores(self, model: Model) -> None:
        """Check that the model takes sound in the form that its feature extractor returns, and scores its tokens."""
        (extracted,) = self._features(model, self.example(model))
        if (expected := model.module.main_input_name) != extracted:
            raise RecipeError(
                f"{type(model.module).__name__} takes {expected}, but the feature extractor beside it returns "
                f"{extracted}: it belongs to another model. Use the right preprocessor_config.json."
            )
        scored = self.forward(model, self.example(model)).shape[-1]
        tokenizer = companions(model).tokenizer
        if len(tokenizer.get_vocab()) - len(tokenizer.all_special_ids) > scored:
            raise RecipeError(
                f"{type(model.module).__name__} scores {scored} tokens, but the tokenizer beside it has "
                f"{len(tokenizer.get_vocab())}: it belongs to another model. Use the right vocab.json."
            )

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create quiet noise of `seconds`: a list of `size` float32 arrays [samples] at 16 kHz."""
        import numpy as np

        generator = np.random.default_rng(seed)
        return list(generator.normal(0, 0.1, (size, self.seconds * RATE_HZ)).astype(np.float32))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Recognise; mark `features` and `encoder`; return scores [batch, frames, tokens]."""
        features = self._features(model, batch)
        mark("features")
        scores = model.module(*features.values())["logits"]
        mark("encoder")
        return scores

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from the features of a sound [batch, samples, ...] to scores (see `run`).

        Its example is as long as a window, because some runtimes take nothing longer than the example.
        """
        longest = replace(self, seconds=max(self.seconds, self.window_seconds))
        inputs = self._features(model, longest.batch(model, 2, 0))
        dynamic = {**{name: {0: "batch", 1: "samples"} for name in inputs}, "logits": {0: "batch", 1: "frames"}}
        return {"model": graph(_scores, inputs, ["logits"], dynamic, encoder=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported encoder."""
        model.module = _Exported(calls)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Copy a share of the layers, evenly spaced (see `Family.student`)."""
        return thinned(model, keep)

    def classes(self, model: Model) -> int:
        """Return the number of tokens that a frame is scored for."""
        return vocabulary(model)

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time reading the text from the scores."""
        import torch

        with torch.inference_mode():
            scores = self.run(model, self.batch(model, size, seed), lambda stage: None)
        return {"postprocess": lambda: [self._text(model, best) for best in scores.argmax(-1).tolist()]}

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Return the real-time factor: processing time over audio time."""
        return {"real_time_factor": latency_ms / 1000 / (self.seconds * size)}

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read sounds, decoded when they are used, and their transcripts.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or all transcripts are empty.
        """
        rows = transcribed(model, data, folder, limit, seed)
        chosen = "" if self.language == _AUTO else f"language {self.language}"
        long_ones = how_long_ones_are_heard(rows, self.window_seconds, 2 * self.window_seconds / SHARE)
        if scoring := "; ".join(filter(None, (chosen, long_ones))):
            model.facts[SCORING] = scoring
        return [Sample(row.values["audio"], str(row.values["text"])) for row in rows]

    def scored_rates(self, inputs: Sequence[Any], seconds: float) -> Mapping[str, float]:
        """Return the real-time factor over the scored sounds."""
        return factor_over(inputs, seconds)

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Normalise transcripts by the rules for their language, if it is known: those for English are special."""
        if self.language in (_AUTO, "eng"):
            return self.metrics
        return tuple(f"{name}:language=other" if name.endswith("_normalized") else name for name in self.metrics)

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw sounds that are not scored, cut to `window_seconds`; without any, see `Family.calibration`."""
        sounds = [sound[: self.window_seconds * RATE_HZ] for sound in unscored(model, count * size, seed)]
        if not sounds:
            return super().calibration(model, count, seed, size)
        return [sounds[start : start + size] for start in range(0, len(sounds), size)]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Transcribe each sound: 16 kHz mono samples in [-1, 1], an array or convertible to one.

        The text of a sound is NaN if the model's scores of a frame are not numbers.

        Each frame gives its best token. A sound of more than `window_seconds` is recognised in overlapping windows, of
        which only the frames in the middle count.
        """
        import numpy as np
        import torch

        with torch.inference_mode():
            sounds = (np.asarray(sound, dtype=np.float32) for sound in inputs)
            best = [self._best(model, sound) for sound in sounds]
        return [math.nan if lacks_number(tokens) else self._text(model, tokens) for tokens in best]

    def _best(self, model: Model, sound: Any) -> list[int]:
        """Return the best token of each frame of a sound [samples]."""
        length = self.window_seconds * RATE_HZ
        hop = self._hop(model) if len(sound) > length else 1
        best: list[int] = []
        for window in windows(len(sound), length, hop):
            scores = self.forward(model, [sound[window.start : window.end]])
            best += best_classes(scores[0]).tolist()[window.frames(hop)]
        return best

    def _hop(self, model: Model) -> int:
        """Return how many samples a frame of the output stands for."""
        if (hop := getattr(model.config, "inputs_to_logits_ratio", None)) is not None:
            return int(hop)
        (sound,) = replace(self, seconds=self.window_seconds).batch(model, 1, 0)
        return round(len(sound) / int(self.forward(model, [sound]).shape[1]))

    def _text(self, model: Model, best: Sequence[int]) -> str:
        return text_of(companions(model).tokenizer, best, model.config.pad_token_id)

    def _features(self, model: Model, sounds: Sequence[Any]) -> dict[str, Any]:
        """Return the encoder's input by name: samples [batch, samples], or a spectrogram [batch, steps, mels].

        What the extractor fills up behind the longest sound is cut off. A batch of different lengths keeps the silence
        behind the shorter ones; predictions are made one by one.
        """
        import numpy as np

        filled = [np.pad(sound, (0, max(0, _SHORTEST - len(sound)))) for sound in sounds]
        extractor = companions(model).features
        extracted = extractor(filled, sampling_rate=RATE_HZ, return_tensors="pt", padding=True)
        name = next((name for name in _INPUTS if name in extracted), None)
        if name is None:
            raise RecipeError(
                f"The model's feature extractor returns {', '.join(extracted)}; this family's models take "
                f"{' or '.join(_INPUTS)}."
            )
        values = extracted[name]
        if "attention_mask" in extracted:
            values = values[:, : int(extracted["attention_mask"].sum(-1).max())]
        return {name: values.to(model.device, model.module.dtype)}

    def example(self, model: Model) -> list[Any]:
        """Return a tenth of a second of silence."""
        import numpy as np

        return [np.zeros(_SHORTEST, dtype=np.float32)]


class _Exported(Attached):
    def __call__(self, features: Any) -> dict[str, Any]:
        return {"logits": self.calls["model"](features)[0]}


def _scores(parts: Any, features: Any) -> tuple[Any, ...]:
    return (parts.encoder(features)["logits"],)


def _feature_extractor(model: Model, origin: Origin) -> Any:
    from transformers import AutoFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

    config = model.config
    if origin.kind == "random":
        if model.module.main_input_name == "input_values":
            return Wav2Vec2FeatureExtractor(return_attention_mask=getattr(config, "feat_extract_norm", "") == "layer")
        if config.model_type == "wav2vec2-bert":
            return SeamlessM4TFeatureExtractor()
        raise RecipeError(
            "With random weights only models that take samples (input_values) can be built, and Wav2Vec2-BERT, not "
            f"{config.model_type}: use a folder that save_pretrained wrote."
        )
    try:
        return AutoFeatureExtractor.from_pretrained(origin.location, **origin.arguments)
    except Exception as error:  # errors of the hub, files and configs have no common base class
        raise WeightsError(f"The feature extractor in {origin.location} can't be loaded: {one_line(error)}") from error
