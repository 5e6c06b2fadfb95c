"""ONNX Runtime's int8, static and dynamic."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported import compress, forward, own

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import stored_weights


def test_dynamic_int8_needs_matrix_products(tmp_path: Path) -> None:
    code = "import torch\nmodel = lambda: torch.nn.Conv2d(3, 8, 3)\nbatch = lambda size: torch.rand(size, 3, 8, 8)\n"
    with pytest.raises(Unsupported, match="no layer that the method quantises"):
        compress("onnx_int8:mode=dynamic", *own(tmp_path, code))


@pytest.mark.parametrize(("is_convolutional", "ranges"), [(True, "from calibration"), (False, "at each call")])
def test_convolutions_are_calibrated_and_products_are_not(is_convolutional: bool, ranges: str, tmp_path: Path) -> None:
    layer, shape = ("Conv2d(3, 8, 3)", "3, 8, 8") if is_convolutional else ("Linear(64, 64)", "64")
    code = f"import torch\nmodel = lambda: torch.nn.{layer}\nbatch = lambda size: torch.rand(size, {shape})\n"
    model = compress("onnx_int8", *own(tmp_path, code))
    assert model.facts["activations"].endswith(ranges)


@pytest.mark.parametrize("grouped", ["onnx_int8:samples=2", "onnx_int8:samples=2,per_channel=false"])
def test_transposed_convolutions_in_groups(grouped: str, tmp_path: Path) -> None:
    code = """
import torch
from torch import nn

def model():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 16, 2, groups=4), nn.ReLU(), nn.Conv2d(16, 4, 3)
    )

def batch(size):
    return torch.rand(size, 3, 8, 8)
"""
    family, model = own(tmp_path, code)
    batch = family.batch(model, 2, 0)
    want = forward(family, model, batch)
    model = compress(grouped, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.1
    assert sum(part.parameters for part in stored_weights.held(model.module)) == 432 + 16 + 256 + 16 + 576 + 4
