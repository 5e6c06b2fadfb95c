"""Speech recognition with an encoder and a decoder: Whisper and its kin, through transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.errors import WeightsError
from mlflow_compress.hub import (
    Origin,
    find_weights,
    load_tokenizer,
    load_transformer,
    restore_assets,
    restore_transformer,
    save_transformer,
)
from mlflow_compress.sockets import Family, Mark, Model

_AUTO_CLASS = "AutoModelForSpeechSeq2Seq"
_RATE_HZ = 16_000
_WINDOW_SECONDS = 30


@dataclass
class Asr(Family):
    """A transformers speech-to-text model, decoding greedily with a key-value cache.

    Every variant makes exactly `new_tokens` tokens, whatever it hears, so that all do equal work.

    Attributes:
        new_tokens: how many tokens one call makes.
        architecture: the config's fields with `model_type`, for random weights.
    """

    timed: ClassVar[str] = (
        "log-mel features of a 30 s window of 16 kHz audio, the encoder, and greedy decoding of exactly new_tokens "
        "tokens with a key-value cache"
    )
    metrics: ClassVar[tuple[str, ...]] = ("wer", "cer")
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "accelerate", "safetensors.torch")

    new_tokens: Annotated[int, Ge(2)] = 32
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the recogniser, its feature extractor and its tokenizer (see `Family.load`)."""
        origin = find_weights(source, weights, folder)
        model = load_transformer(_AUTO_CLASS, source, origin, self.architecture, seed)
        model.assets["features"] = _feature_extractor(model.assets["config"], origin)
        model.assets["tokenizer"] = load_tokenizer(origin)
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Make 30 s of quiet noise for each sample: a list of `size` float32 arrays [480000] at 16 kHz."""
        import numpy as np

        generator = np.random.default_rng(seed)
        return list(generator.normal(0, 0.1, (size, _WINDOW_SECONDS * _RATE_HZ)).astype(np.float32))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Recognise; marks `features`, `encoder`, `first_token`, and one `token` for each later one.

        Returns:
            The last logits [batch, vocabulary].
        """
        import torch

        features = self._features(model, batch)
        mark("features")
        encoded = model.module.get_encoder()(features)
        mark("encoder")
        start = model.assets["config"].decoder_start_token_id
        token = torch.full((len(batch), 1), start, device=features.device)
        past = None
        for index in range(self.new_tokens):
            output = model.module(
                encoder_outputs=encoded, decoder_input_ids=token, past_key_values=past, use_cache=True
            )
            past = output.past_key_values
            token = output.logits[:, -1:].argmax(-1)
            mark("token" if index else "first_token")
        return output.logits[:, -1]

    def forward(self, model: Model, batch: Any) -> Any:
        """Run encoder and decoder once, over given random tokens; gives logits [batch, new_tokens, vocabulary]."""
        import torch

        generator = torch.Generator().manual_seed(0)
        vocabulary = model.assets["config"].vocab_size
        tokens = torch.randint(0, vocabulary, (1, self.new_tokens), generator=generator).expand(len(batch), -1)
        features = self._features(model, batch)
        output = model.module(input_features=features, decoder_input_ids=tokens.to(features.device), use_cache=False)
        return output.logits

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Give the real-time factor (processing time over audio time) and tokens per second in decoding."""
        return {
            "real_time_factor": latency_ms / 1000 / (_WINDOW_SECONDS * size),
            "decode_tokens_per_s": size / stages_ms["token"] * 1000,
        }

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Transcribe each sound: 16 kHz mono samples in [-1, 1], an array or a list; cut to 30 s.

        The model's own `generate` decodes, with its language and task tokens, until the text ends.
        """
        import numpy as np
        import torch

        tokenizer = model.assets["tokenizer"]
        longest = model.assets["config"].max_target_positions // 2
        found = []
        with torch.inference_mode():
            for sound in inputs:
                features = self._features(model, [np.asarray(sound, dtype=np.float32)])
                made = model.module.generate(features, max_new_tokens=longest, do_sample=False)[0].tolist()
                known = [token for token in made if token < len(tokenizer)]
                found.append(tokenizer.decode(known, skip_special_tokens=True).strip())
        return found

    def _features(self, model: Model, sounds: Sequence[Any]) -> Any:
        extracted = model.assets["features"](list(sounds), sampling_rate=_RATE_HZ, return_tensors="pt")
        return extracted.input_features.to(model.device, model.module.dtype)

    def save(self, model: Model, folder: Path) -> None:
        """Write config, generation config, feature extractor and tokenizer."""
        save_transformer(model, folder, "features", "tokenizer")
        model.module.generation_config.save_pretrained(folder)

    def restore(self, folder: Path) -> Model:
        """Build the unfilled recogniser, its feature extractor and its tokenizer."""
        from transformers import GenerationConfig

        model = restore_transformer(_AUTO_CLASS, self.restore_assets(folder))
        model.module.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Give config, feature extractor and tokenizer."""
        return restore_assets(folder, features="AutoFeatureExtractor", tokenizer="AutoTokenizer")


def _feature_extractor(config: Any, origin: Origin) -> Any:
    from transformers import AutoFeatureExtractor, WhisperFeatureExtractor

    if origin.kind == "random":
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    try:
        return AutoFeatureExtractor.from_pretrained(origin.location, local_files_only=origin.offline)
    except Exception as error:  # hub, file and config errors share no root
        message = " ".join(str(error).split())[:400]
        raise WeightsError(f"The feature extractor in {origin.location} can't be loaded: {message}") from error
