"""ONNX in half precision."""

from __future__ import annotations

from pathlib import Path

from exported import compress, forward, text

from mlflow_compress.meters import size
from mlflow_compress.networks import stored_weights


def test_fp16_halves_the_bytes(tmp_path: Path) -> None:
    family, model = text()
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    total = sum(parameter.numel() for parameter in model.module.parameters())
    model = compress("onnx_fp16", family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.01
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == total
    assert numbers["size/weights_mib"] == total * 2 / 2**20
