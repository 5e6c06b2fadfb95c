"""A tiny trained Whisper recognises the same texts in every runtime that it is exported to."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.data.media import RATE_HZ
from mlflow_compress.networks import generation_check, model_folder
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

SPOKEN = {220: "low note", 440: "the middle", 1760: "so high"}  # by the tone's frequency in Hz
ARCHITECTURE = {
    **TINY["asr"]["architecture"],
    "d_model": 32,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "init_std": 0.1,
}


def tone(hertz: int) -> Any:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(2 * RATE_HZ) / RATE_HZ)).astype(np.float32)


def tones(family: Family, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
    """Replace `Family.calibration`, with sounds that the model was trained on."""
    sounds = itertools.cycle(tone(hertz) for hertz in SPOKEN)
    return [[next(sounds) for _ in range(size)] for _ in range(count)]


@pytest.fixture(scope="module")
def trained() -> tuple[Family, Model]:
    """Train it on the three texts, which takes some seconds."""
    family: Family = registry.build("families", "asr", {"new_tokens": 8, "architecture": ARCHITECTURE})
    model = family.load("tiny", "random", Path(), 0)
    tokenizer = companions(model).tokenizer
    features = family._features(model, [tone(hertz) for hertz in SPOKEN])  # type: ignore[attr-defined]
    texts = tokenizer(list(SPOKEN.values()), padding=True, return_tensors="pt").input_ids
    labels = texts.masked_fill(texts == tokenizer.pad_token_id, -100)
    optimizer = torch.optim.AdamW(model.module.requires_grad_(True).parameters(), lr=5e-3)
    torch.manual_seed(0)
    for _ in range(400):
        loss = model.module(**features, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.003:
            break
    model.module.requires_grad_(False)
    return family, model


def test_it_has_learned_to_speak(trained: tuple[Family, Model]) -> None:
    family, model = trained
    assert family.predict(model, [tone(hertz) for hertz in SPOKEN]) == list(SPOKEN.values())


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize(
    "chain",
    [
        "torchscript",
        "torch_export",
        "onnx",
        "onnx_fp16",
        "onnx_int8:samples=4",
        "onnx_int8:mode=dynamic",
        "openvino",
        "openvino:precision=default",
        "openvino_int8:samples=4",
    ],
)
def test_every_runtime_recognises_the_same_as_torch(
    chain: str, trained: tuple[Family, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, model = trained
    monkeypatch.setattr(type(family), "calibration", tones)
    steps = chains.parse_chain(chain)
    methods = model_folder.methods_of(steps)
    copied = dataclasses.replace(model, cautions=[], facts={})
    compressed = methods[0].compress(copied, family)
    generation_check.keep(family, compressed, tmp_path / "generated.pt")
    target = tmp_path / "model"
    target.mkdir()
    variant = Variant("w", chain, "t", "asr", "tiny", "random", chain=steps, options=dataclasses.asdict(family))
    model_folder.save(compressed, family, methods, variant, target)
    restored = model_folder.restore(target)
    generation_check.compare(restored.family, restored.model, tmp_path / "generated.pt", "cpu")
    assert restored.family.predict(restored.model, [tone(hertz) for hertz in SPOKEN]) == list(SPOKEN.values())
