"""ONNX Runtime's int8, static and dynamic."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported import compress, own

from mlflow_compress.errors import Unsupported


def test_dynamic_int8_needs_matrix_products(tmp_path: Path) -> None:
    code = "import torch\nmodel = lambda: torch.nn.Conv2d(3, 8, 3)\nbatch = lambda size: torch.rand(size, 3, 8, 8)\n"
    with pytest.raises(Unsupported, match="no layer that it quantises"):
        compress("onnx_int8:mode=dynamic", *own(tmp_path, code))


@pytest.mark.parametrize(("is_convolutional", "said"), [(True, "from calibration"), (False, "at each call")])
def test_convolutions_are_calibrated_and_products_are_not(is_convolutional: bool, said: str, tmp_path: Path) -> None:
    layer, shape = ("Conv2d(3, 8, 3)", "3, 8, 8") if is_convolutional else ("Linear(64, 64)", "64")
    code = f"import torch\nmodel = lambda: torch.nn.{layer}\nbatch = lambda size: torch.rand(size, {shape})\n"
    model = compress("onnx_int8", *own(tmp_path, code))
    assert model.facts["activations"].endswith(said)
