"""Speech recognition with an encoder and a decoder: Whisper and similar models, through transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.data.media import RATE_HZ
from mlflow_compress.data.transcribed import factor_over, how_long_ones_are_heard, transcribed, unscored
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, one_line
from mlflow_compress.model import SCORING
from mlflow_compress.networks import whisper_prompts
from mlflow_compress.networks.decoding import (
    ONE_ANSWER,
    cache_keyword,
    cache_of,
    continuation,
    generate,
    settings_of,
    tensors_of,
)
from mlflow_compress.networks.encoder_decoder_graphs import decoder_graph, encoder_graph, take_projections
from mlflow_compress.networks.export_graphs import Calls, twin
from mlflow_compress.networks.exported_decoders import EncoderDecoder
from mlflow_compress.networks.hub import Origin
from mlflow_compress.networks.sound_windows import SHARE, joined, windows
from mlflow_compress.networks.text_inputs import of_text, require_pass, require_two_parts, vocabulary
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_tokenizer,
    load_transformer,
)
from mlflow_compress.sockets import Continuation, Graph, Mark, Model, Sample

_WINDOW_SECONDS = 30
_INPUTS = ("input_features", "input_values")
_TARGET_POSITIONS = 448  # Whisper's, if the config has none
_SPEECH_TOKENS = 100  # in a window full of speech: about three words, or four tokens, per second


@dataclass
class Asr(TransformersFamily):
    """A transformers speech-to-text model, decoding greedily with a key-value cache.

    Every timed call generates exactly `new_tokens` tokens, whatever the sound, so that all variants do equal work.

    Attributes:
        new_tokens: number of tokens that one call generates.
        language: the spoken language, as a code (`ru`) or in English (`russian`); auto: the model's own setting, which
            is often to detect the language of each sound.
        task: `transcribe`, or `translate` into English; auto: the model's own setting.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForSpeechSeq2Seq"
    pipeline: ClassVar[str] = "automatic-speech-recognition"
    keeps: ClassVar[tuple[str, ...]] = ("features", "tokenizer", "generation")
    call_options: ClassVar[tuple[str, ...]] = ("new_tokens", "language", "task")
    timed: ClassVar[str] = (
        "log-mel features of a 30 s window of 16 kHz audio, the encoder, and generate of transformers: greedy decoding "
        "of exactly new_tokens tokens with a key-value cache"
    )
    metrics: ClassVar[tuple[str, ...]] = ("wer", "cer", "wer_normalized", "cer_normalized")
    gives: ClassVar[tuple[str, ...]] = ("texts",)
    flexible_axes: ClassVar[tuple[int, ...]] = (0,)

    new_tokens: Annotated[int, Ge(2)] = 32
    language: str = whisper_prompts.AUTO
    task: Literal["auto", "transcribe", "translate"] = "auto"
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the recogniser, its feature extractor and its tokenizer (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        require_two_parts(model, "sound")
        if "tgt_lang" in inspect.signature(model.module.generate).parameters:  # SeamlessM4T's
            raise RecipeError(
                f"{type(model.module).__name__} translates speech and needs a target language, which this family does "
                "not support: it measures models that transcribe speech."
            )
        generation = settings_of(model.module, model.facts)
        if origin.kind == "random" and {self.language, self.task} != {whisper_prompts.AUTO}:
            whisper_prompts.give_tokens(model.config, generation)
        whisper_prompts.settle(generation, self.language, self.task, source)
        model.family_data = Companions(
            tokenizer=load_tokenizer(origin),
            features=_feature_extractor(model.config, origin),
            generation=generation,
            code=origin.code,
        )
        require_pass(model, lambda: self._require_hearing(model), "sounds alone")
        return model

    def _require_hearing(self, model: Model) -> None:
        """Check that the model takes sound in the form that its feature extractor returns, and run it once."""
        (extracted,) = self._features(model, self.example(model))
        if (expected := model.module.main_input_name) == "input_ids":
            raise RecipeError(
                f"{type(model.module).__name__} takes token ids and no sound: it is not a speech recogniser."
            )
        if expected in _INPUTS and expected != extracted:
            raise RecipeError(
                f"{type(model.module).__name__} takes {expected}, but the feature extractor beside it returns "
                f"{extracted}: it belongs to another model. Use the right preprocessor_config.json."
            )
        short_family = replace(self, new_tokens=2)
        short_family.run(model, short_family.batch(model, 1, 0), lambda stage: None)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create 30 s of quiet noise for each sample: a list of `size` float32 arrays [480000] at 16 kHz."""
        import numpy as np

        generator = np.random.default_rng(seed)
        return list(generator.normal(0, 0.1, (size, _WINDOW_SECONDS * RATE_HZ)).astype(np.float32))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Recognise; mark `features`, `encoder`, `first_token`, and one `token` for each later token.

        Language detection, if the model does it, is part of `first_token`. A runtime that generates all tokens in one
        call marks `decoder` once.

        Returns:
            The new tokens [batch, new_tokens].
        """
        features = self._features(model, batch)
        mark("features")
        encoded = model.module.get_encoder()(*features.values())
        mark("encoder")
        return generate(model.module, self.new_tokens, mark, "first_token", encoder_outputs=encoded)

    def generate(self, model: Model, batch: Any, new_tokens: int) -> Continuation:
        """Recognise sounds, as `batch` returns them, with `new_tokens` tokens (see `Family.generate`)."""
        features = self._features(model, batch)
        return continuation(
            model.module,
            min(new_tokens, self.new_tokens),
            lambda ids: model.module(**features, decoder_input_ids=ids, use_cache=False).logits,
            **features,
        )

    def forward(self, model: Model, batch: Any) -> Any:
        """Run encoder and decoder once on random target tokens; return logits [batch, new_tokens, vocabulary]."""
        import torch

        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, vocabulary(model), (1, self.new_tokens), generator=generator).expand(len(batch), -1)
        features = self._features(model, batch)
        output = model.module(**features, decoder_input_ids=tokens.to(model.device), use_cache=False)
        return output.logits

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return two graphs, `encoder`, which takes `input_features` [batch, mels, frames], and `decoder`.

        `encoder_decoder_graphs` describes their inputs and outputs; the source is half as long as the frames.

        Raises:
            Unsupported: its decoder is not built like Whisper's.
        """
        module = twin(model.module)
        decoder = module.get_decoder()
        try:
            cross = take_projections([layer.encoder_attn for layer in decoder.layers], "k_proj", "v_proj", "num_heads")
        except AttributeError as error:
            raise Unsupported(f"only decoders built like Whisper's can be exported ({error})") from None
        model.config.cache_shape = cross.cache_shape  # for the empty past of the first call
        inputs = self._features(model, self.batch(model, 2, 0))
        by_batch = {0: "batch"}
        encode = encoder_graph(module.get_encoder(), cross, inputs, dict.fromkeys(inputs, by_batch), by_batch)
        decode = decoder_graph(_decode, cross, encode, decoder=decoder, head=module.get_output_embeddings())
        return {"encoder": encode, "decoder": decode}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported encoder and decoder."""
        config, generation = model.config, companions(model).generation
        model.module = EncoderDecoder(calls, self.auto_class, config, generation, model.device, heeds_mask=False)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Keep the encoder, frozen, and an evenly spaced share of the decoder's layers.

        Source: Gandhi et al., Distil-Whisper, arXiv 2311.00430, section 3.
        """
        student = thinned(model, keep, "decoder")
        student.module.get_encoder().requires_grad_(False)
        return student

    def classes(self, model: Model) -> int:
        """Return the number of tokens in the vocabulary."""
        return vocabulary(model)

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Return the real-time factor (processing time over audio time) and tokens per second in decoding.

        30 s of speech have about 100 tokens. If a call generates fewer, the factor is an estimate that adds the missing
        tokens at the speed of the generated ones, and it has another name.
        """
        missing = max(0, _SPEECH_TOKENS - self.new_tokens)
        name = "real_time_factor_estimated" if missing else "real_time_factor"
        token_ms = stages_ms["token"] if "token" in stages_ms else stages_ms["decoder"] / self.new_tokens
        rates = {name: (latency_ms + missing * token_ms) / 1000 / (_WINDOW_SECONDS * size)}
        return rates | ({"decode_tokens_per_s": size / token_ms * 1000} if "token" in stages_ms else {})

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read sounds, decoded when they are used, and their transcripts.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or all transcripts are empty.
        """
        rows = transcribed(model, data, folder, limit, seed)
        generation = companions(model).generation
        if whisper_prompts.detects_language(model.config, generation):
            model.cautions.append(whisper_prompts.DETECTED_LANGUAGE.of())
        chosen = "" if {self.language, self.task} == {whisper_prompts.AUTO} else whisper_prompts.described(generation)
        long_ones = how_long_ones_are_heard(rows, _WINDOW_SECONDS, 2 * _WINDOW_SECONDS / SHARE)
        if scoring := "; ".join(filter(None, (chosen, long_ones))):
            model.facts[SCORING] = scoring
        return [Sample(row.values["audio"], str(row.values["text"])) for row in rows]

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Normalise transcripts by the rules for their language, if it is fixed: those for English are special."""
        generation = companions(model).generation
        language = str(getattr(generation, "language", None) or "en").strip("<|>").lower()
        if language in ("en", "english") or getattr(generation, "task", None) == "translate":
            return self.metrics
        return tuple(f"{name}:language=other" if name.endswith("_normalized") else name for name in self.metrics)

    def scored_rates(self, inputs: Sequence[Any], seconds: float) -> Mapping[str, float]:
        """Return the real-time factor over the scored sounds."""
        return factor_over(inputs, seconds)

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw sounds that are not scored; without any, see `Family.calibration`."""
        sounds = unscored(model, count * size, seed)
        if not sounds:
            return super().calibration(model, count, seed, size)
        return [sounds[start : start + size] for start in range(0, len(sounds), size)]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Transcribe each sound: 16 kHz mono samples in [-1, 1], an array or convertible to one.

        The model's own `generate` decodes, with its language and task tokens, until the text ends. A sound of more than
        30 s is recognised in overlapping windows (see `sound_windows`).
        """
        import numpy as np
        import torch

        tokenizer = companions(model).tokenizer
        transcripts = []
        with torch.inference_mode():
            for sound in inputs:
                samples = np.asarray(sound, dtype=np.float32)
                parts = [
                    self._recognised(model, samples[window.start : window.end])
                    for window in windows(len(samples), _WINDOW_SECONDS * RATE_HZ)
                ]
                if len(parts) > 1:
                    special = _special_ids(tokenizer)
                    parts = [joined([[token for token in part if token not in special] for part in parts])]
                transcripts.append(tokenizer.decode(parts[0], skip_special_tokens=True).strip())
        return transcripts

    def _recognised(self, model: Model, samples: Any) -> list[int]:
        """Return the tokens of one window [samples]."""
        longest = (of_text(model.config, "max_target_positions") or _TARGET_POSITIONS) // 2
        features = self._features(model, [samples])
        output = model.module.generate(*features.values(), **ONE_ANSWER, max_new_tokens=longest, max_length=None)
        size = len(companions(model).tokenizer)
        return [token for token in output[0].tolist() if token < size]

    def _features(self, model: Model, sounds: Sequence[Any]) -> dict[str, Any]:
        """Return the encoder's input by name: Whisper's spectrogram, or Moonshine's unchanged samples."""
        extracted = companions(model).features(list(sounds), sampling_rate=RATE_HZ, return_tensors="pt")
        name = next((name for name in _INPUTS if name in extracted), None)
        if name is None:
            raise RecipeError(
                f"The model's feature extractor returns {', '.join(extracted)}; this family's models take "
                f"{' or '.join(_INPUTS)}."
            )
        return {name: extracted[name].to(model.device, model.module.dtype)}

    def example(self, model: Model) -> list[Any]:
        """Return a tenth of a second of silence."""
        import numpy as np

        return [np.zeros(RATE_HZ // 10, dtype=np.float32)]


def _decode(parts: Any, input_ids: Any, *caches: Any) -> tuple[Any, ...]:
    from transformers import EncoderDecoderCache

    past, cross = caches[: len(caches) // 2], caches[len(caches) // 2 :]
    cache = EncoderDecoderCache(cache_of(past), cache_of(cross))
    # with keys and values given, the decoder ignores the encoder's states, but it needs some
    hidden = parts.decoder(input_ids, encoder_hidden_states=cross[0], use_cache=True, **{cache_keyword(): cache})
    return parts.head(hidden.last_hidden_state), *tensors_of(cache.self_attention_cache)


def _special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of tokens that are not text, such as those of languages."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}


def _feature_extractor(config: Any, origin: Origin) -> Any:
    from transformers import AutoFeatureExtractor, WhisperFeatureExtractor

    if origin.kind == "random":
        if not hasattr(config, "num_mel_bins"):
            raise RecipeError(
                f"With random weights only models with Whisper's input can be built, not {config.model_type}: use a "
                "folder that save_pretrained wrote."
            )
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    try:
        return AutoFeatureExtractor.from_pretrained(origin.location, **origin.arguments)
    except Exception as error:  # errors of the hub, files and configs have no common base class
        raise WeightsError(f"The feature extractor in {origin.location} can't be loaded: {one_line(error)}") from error
