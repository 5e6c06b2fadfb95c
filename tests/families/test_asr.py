"""Speech recognition: a timed call hears 30 seconds and generates a fixed number of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.transformers_models import companions


def test_a_timed_call_processes_a_window_and_generates_all_tokens() -> None:
    family, model = tiny_model("asr", new_tokens=4)
    batch = family.batch(model, 2, 0)
    assert [(sound.shape, sound.dtype) for sound in batch] == [((480_000,), np.float32)] * 2
    stages: list[str] = []
    with torch.inference_mode():
        tokens = family.run(model, batch, stages.append)
    assert tokens.shape == (2, 4)
    assert stages == ["features", "encoder", "first_token", "token", "token", "token"]


def test_the_real_time_factor_is_the_share_of_the_audios_length() -> None:
    family, _ = tiny_model("asr", new_tokens=100)
    rates = family.rates(6000.0, {"token": 20.0}, 2)
    assert rates == {"real_time_factor": pytest.approx(0.1), "decode_tokens_per_s": pytest.approx(100)}


def test_with_fewer_tokens_than_speech_the_factor_is_an_estimate() -> None:
    family, _ = tiny_model("asr", new_tokens=32)
    rates = family.rates(6000.0, {"token": 20.0}, 2)
    assert rates["real_time_factor_estimated"] == pytest.approx((6 + 68 * 0.02) / 60)
    assert "real_time_factor" not in rates


def test_transcripts_equal_those_of_transformers() -> None:
    family, model = tiny_model("asr")
    sound = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    features = companions(model).features(sound, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        output = model.module.generate(features, max_new_tokens=8, do_sample=False)
    tokenizer = companions(model).tokenizer
    ids = [token for token in output[0].tolist() if token < len(tokenizer)]
    expected = tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert family.predict(model, [sound, sound.tolist()]) == [expected, expected]


def test_the_encoder_of_a_student_is_not_trained() -> None:
    family, model = tiny_model("asr")
    student = family.student(model, 0.5)
    assert (student.config.decoder_layers, student.config.encoder_layers) == (1, 1)
    trained = {name for name, parameter in student.module.named_parameters() if parameter.requires_grad}
    assert trained
    assert not any(name.startswith("model.encoder.") for name in trained)


def test_features_of_another_model_are_rejected(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    _, model = tiny_model("asr")
    model.module.save_pretrained(tmp_path)
    companions(model).tokenizer.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(
        RecipeError, match="takes input_features, but the feature extractor beside it returns input_val"
    ):
        registry.build("families", "asr", {}).load(str(tmp_path), "auto", tmp_path, 0)


def test_models_that_are_not_recognisers_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import WhisperForConditionalGeneration

    def generate(self: object, tgt_lang: str) -> None: ...

    with monkeypatch.context() as patched:
        patched.setattr(WhisperForConditionalGeneration, "main_input_name", "input_ids")
        with pytest.raises(RecipeError, match="takes token ids and no sound"):
            tiny_model("asr")
    monkeypatch.setattr(WhisperForConditionalGeneration, "generate", generate)
    with pytest.raises(RecipeError, match="translates speech and needs a target language"):
        tiny_model("asr")
