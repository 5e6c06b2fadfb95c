"""The batch size of predictions does not change scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_samples import loaded, write

from mlflow_compress.measuring import quality
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

COUNT = 7
METRICS = {
    "text_classification": ("accuracy", "f1"),
    "causal_lm": ("perplexity", "bits_per_byte"),
    "asr": ("wer", "cer"),
    "asr_ctc": ("wer", "cer"),
}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Create samples of very different lengths."""
    lines = []
    for index in range(COUNT):
        sound = np.random.default_rng(index).normal(0, 0.1, 3000 + 4000 * index)
        soundfile.write(folder / f"{index}.wav", sound, 16_000)
        text = " ".join(chr(97 + (index * word) % 26) * (1 + word % 3) for word in range(2 + 5 * index))
        lines.append({"text": text, "label": f"LABEL_{index % 2}", "audio": f"{index}.wav"})
    return lines


def differing(name: str) -> tuple[Family, Model]:
    """Return a model whose answers differ: with random weights they hardly would."""
    family, model = loaded(name)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.module.parameters():
        if parameter.dim() > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return family, model


@pytest.mark.parametrize("name", METRICS)
def test_a_score_is_the_same_for_all_batch_sizes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"text_classification": ("text", "label"), "causal_lm": ("text",)}.get(name, ("audio", "text"))
    data = write(tmp_path / "a.jsonl", [{key: row[key] for key in columns} for row in rows(tmp_path)])
    family, model = differing(name)
    variant = Variant("m", "original", "t", name, "x", data=data, metrics=METRICS[name], folder=str(tmp_path))
    scores = []
    for at_once in (1, 3, 32):
        monkeypatch.setattr(quality, "_AT_ONCE", at_once)
        part = quality.score(family, model, variant, tmp_path, lambda *_: None)
        references, predictions = quality.read_predictions((tmp_path / quality.PREDICTIONS).read_text())
        numbers = {key: value for key, value in part.measurements.items() if not key.startswith("cpu/")}
        assert ("cpu/real_time_factor_scored" in part.measurements) == name.startswith("asr")
        scores.append((numbers, references, predictions))
    first, *other_scores = scores
    assert first[0]["quality/samples"] == COUNT
    if name == "text_classification":
        assert len({str(prediction) for prediction in first[2]}) > 1
    for numbers, references, predictions in other_scores:
        assert references == first[1]
        assert numbers == pytest.approx(first[0], rel=1e-5)
        for answer, expected in zip(predictions, first[2], strict=True):
            assert answer == (pytest.approx(expected, rel=1e-4) if isinstance(expected, dict) else expected)
