"""ncnn: networks of one input of one size."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported import PARAMETERS, compress, forward, own, text

from mlflow_compress.errors import Unsupported
from mlflow_compress.meters import size
from mlflow_compress.networks import stored_weights


@pytest.mark.parametrize(("chain", "bytes_each"), [("ncnn", 4), ("ncnn:precision=fp16", 2)])
def test_ncnn_takes_networks_of_one_input_of_one_size(chain: str, bytes_each: int, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 1e-3
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == PARAMETERS
    assert 0 <= numbers["size/weights_mib"] * 2**20 - PARAMETERS * bytes_each < 2_000  # headers and padding
    with pytest.raises(Unsupported, match="one input of one size"):
        compress(chain, *text())
