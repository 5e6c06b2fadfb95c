"""Speech recognition with CTC: a timed call scores the frames of a sound, and their best tokens are the text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def test_a_timed_call_scores_every_frame() -> None:
    family, model = tiny_model("asr_ctc")
    batch = family.batch(model, 2, 0)
    assert [(sound.shape, sound.dtype) for sound in batch] == [((16_000,), np.float32)] * 2
    stages: list[str] = []
    with torch.inference_mode():
        scores = family.run(model, batch, stages.append)
    assert (scores.shape[0], scores.shape[2]) == (2, 32)
    assert scores.shape[1] == pytest.approx(16_000 / 320, abs=2)
    assert stages == ["features", "encoder"]


def test_the_real_time_factor_is_the_share_of_the_audios_length() -> None:
    family, _ = tiny_model("asr_ctc", seconds=10)
    assert family.rates(500.0, {}, 2) == {"real_time_factor": pytest.approx(0.025)}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
        {"model_type": "hubert"},
        {"model_type": "wavlm", "num_buckets": 20, "max_bucket_distance": 40},
        {"do_stable_layer_norm": True, "adapter_attn_dim": 4},
    ],
)
def test_transcripts_equal_those_of_transformers(fields: dict[str, Any]) -> None:
    family, model = tiny_model("asr_ctc", fields)
    differ(model)
    extractor, tokenizer = companions(model).features, companions(model).tokenizer
    sound = noise(1.5)
    inputs = extractor(sound, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        best = model.module(**inputs).logits.argmax(-1)[0]
    expected = re.sub(r"<(s|/s|unk)>", "", tokenizer.decode(best)).strip()
    assert len(set(expected)) > 2
    assert family.predict(model, [sound, sound.tolist()]) == [expected, expected]


def differ(model: Any) -> None:
    """Make random weights so large that frames have different tokens."""
    generator = torch.Generator().manual_seed(0)
    head = model.module.lm_head
    head.weight.copy_(torch.randn(head.weight.shape, generator=generator))


class Reader:
    """Reads a token from the middle of each frame: the sample's value is its number, divided by 100."""

    dtype = torch.float32

    def __call__(self, samples: Any) -> dict[str, Any]:
        middles = samples[:, 200::320]
        return {"logits": torch.nn.functional.one_hot((middles * 100).round().long(), 32).float()}


@pytest.mark.parametrize("seconds", [1, 2, 2.01, 5.3, 9.99])
def test_a_long_sound_loses_no_frame_at_the_borders_of_windows(seconds: float) -> None:
    family, model = tiny_model("asr_ctc")
    companions(model).features.do_normalize = False
    model.module = Reader()
    frames = [5 + number % 7 for number in range(int(seconds * 50))]
    sound = np.repeat(np.array(frames, np.float32) / 100, 320)
    letters = [companions(model).tokenizer.convert_ids_to_tokens(number) for number in frames]
    assert family.predict(model, [sound]) == ["".join(letters)]


def test_a_very_short_sound_is_padded() -> None:
    family, model = tiny_model("asr_ctc")
    texts = family.predict(model, [noise(0.001), [0.1]])
    assert all(isinstance(text, str) for text in texts)


def test_a_batch_of_other_lengths_is_padded() -> None:
    family, model = tiny_model("asr_ctc")
    assert family.forward(model, [noise(1), noise(0.5)]).shape[:2] == family.forward(model, [noise(1)] * 2).shape[:2]


def test_a_student_keeps_some_of_the_layers() -> None:
    family, model = tiny_model("asr_ctc", {"num_hidden_layers": 4})
    assert family.student(model, 0.5).config.num_hidden_layers == 2


def save(folder: Path, fields: dict[str, Any] | None = None) -> Any:
    """Write a model as `save_pretrained` does; return it."""
    _, model = tiny_model("asr_ctc", fields)
    differ(model)
    model.module.save_pretrained(folder)
    companions(model).tokenizer.save_pretrained(folder)
    companions(model).features.save_pretrained(folder)
    return model


def test_a_local_folder_is_loaded(tmp_path: Path) -> None:
    saved = save(tmp_path)
    family = registry.build("families", "asr_ctc", {})
    model = family.load(str(tmp_path), "auto", tmp_path, 0)
    assert (model.weights, model.cautions) == ("local", [])
    assert family.predict(model, [noise(1)]) == family.predict(saved, [noise(1)]) != [""]


def multilingual(folder: Path) -> dict[str, Any]:
    """Write a model with adapters of two languages, which have different letters; return the second one's weights."""
    model = save(folder, {"do_stable_layer_norm": True, "adapter_attn_dim": 4})
    letters = companions(model).tokenizer.encoder
    russian = {**dict(list(letters.items())[:5]), **{letter: 5 + index for index, letter in enumerate("абвгдежз")}}
    (folder / "vocab.json").write_text(json.dumps({"eng": letters, "rus": russian}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "target_lang": "eng"}))
    (folder / "added_tokens.json").unlink(missing_ok=True)
    weights = load_file(folder / "model.safetensors")
    adapters = {name: weights[name] for name in weights if "adapter_layer" in name or name.startswith("lm_head")}
    generator = torch.Generator().manual_seed(1)
    other = {
        name: torch.randn((13, *tensor.shape[1:]) if name.startswith("lm_head") else tensor.shape, generator=generator)
        for name, tensor in adapters.items()
    }
    save_file(adapters, folder / "adapter.eng.safetensors")
    save_file(other, folder / "adapter.rus.safetensors")
    return other


def test_a_language_is_an_adapter_with_its_own_letters(tmp_path: Path) -> None:
    source, saved = tmp_path / "mms", tmp_path / "saved"
    source.mkdir()
    adapter = multilingual(source)
    family = registry.build("families", "asr_ctc", {"language": "rus"})
    model = family.load(str(source), "auto", tmp_path, 0)
    assert model.cautions == []
    assert torch.equal(model.module.lm_head.weight, adapter["lm_head.weight"])
    (text,) = family.predict(model, [noise(1)])
    assert set(text) & set("абвгдежз")
    assert family.metrics_for(model)[2:] == ("wer_normalized:language=other", "cer_normalized:language=other")
    saved.mkdir()
    steps = chains.parse_chain("original")
    variant = Variant("m", "original", "t", "asr_ctc", "m", chain=steps, options={"language": "rus"})
    model_folder.save(model, family, model_folder.methods_of(steps), variant, saved)
    restored = model_folder.restore(saved)
    assert restored.family.predict(restored.model, [noise(1)]) == [text]


def test_a_language_without_an_adapter_is_rejected(tmp_path: Path) -> None:
    save(tmp_path)
    family = registry.build("families", "asr_ctc", {"language": "rus"})
    with pytest.raises(RecipeError, match="has no adapters for languages: leave out language"):
        family.load(str(tmp_path), "auto", tmp_path, 0)
    multilingual_folder = tmp_path / "mms"
    multilingual_folder.mkdir()
    multilingual(multilingual_folder)
    family = registry.build("families", "asr_ctc", {"language": "fra"})
    with pytest.raises(WeightsError, match="fra"):
        family.load(str(multilingual_folder), "auto", tmp_path, 0)


def test_parts_of_other_models_are_rejected(tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor

    saved = save(tmp_path)
    vocabulary = {f"t{number}": number for number in range(60)} | {"<pad>": 60}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    family = registry.build("families", "asr_ctc", {})
    with pytest.raises(RecipeError, match=r"scores 32 tokens, but the tokenizer beside it has .* right vocab\.json"):
        family.load(str(tmp_path), "auto", tmp_path, 0)
    companions(saved).tokenizer.save_pretrained(tmp_path)
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="takes input_values, but the feature extractor beside it returns input_feat"):
        family.load(str(tmp_path), "auto", tmp_path, 0)


def test_a_spectrogram_is_as_long_as_its_mask() -> None:
    family, model = tiny_model("asr_ctc")
    model.module = SimpleNamespace(dtype=torch.float32)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    companions(model).features = lambda sounds, **options: {
        "input_features": torch.ones(2, 4, 3),
        "attention_mask": mask,
    }
    assert family._features(model, [noise(1)] * 2)["input_features"].shape == (2, 3, 3)  # type: ignore[attr-defined]
    companions(model).features = lambda sounds, **options: {"mels": 1}
    with pytest.raises(RecipeError, match=r"returns mels; this family's models take input_values or input_features"):
        family._features(model, [noise(1)])  # type: ignore[attr-defined]


def test_an_architecture_of_spectrograms_needs_a_folder() -> None:
    with pytest.raises(RecipeError, match="With random weights only models that take samples"):
        registry.build("families", "asr_ctc", {"architecture": {**PARAKEET, "model_type": "parakeet_ctc"}}).load(
            "x", "random", Path(), 0
        )


PARAKEET = {
    "vocab_size": 32,
    "encoder_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_mel_bins": 16,
        "subsampling_conv_channels": 8,
    },
}
