"""Graphs in ONNX Runtime: the memory of outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import TEXT, Running, compress, opened

from mlflow_compress import registry
from mlflow_compress.meters import size
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.sockets import Family


@pytest.mark.parametrize("chain", ["onnx", "openvino"])
def test_equal_tensors_are_kept_once(chain: str) -> None:
    family: Family = registry.build("families", "text_classification", {"tokens": 12, "architecture": TEXT})
    model = family.load("tiny", "random", Path(), 0)  # its norms are all ones, its biases all zeros
    distinct = {(value.shape, value.sum().item(), value.std().item()) for value in model.module.parameters()}
    least = sum(shape.numel() for shape, _, spread in distinct if spread)  # exporters may drop + 0 and * 1
    total = sum(parameter.numel() for parameter in model.module.parameters())
    assert least <= size.in_memory(compress(chain, family, model).module)["size/params"] < total


def test_the_memory_of_outputs_is_used_again(tmp_path: Path) -> None:
    call = opened(
        "openvino", graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=Running()), tmp_path
    )
    total = torch.zeros(2, 8)
    for _ in range(6):
        (total,) = call(total)
    assert len(call._requests) == 2  # one holds the input, the other the output
