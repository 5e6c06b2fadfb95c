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
