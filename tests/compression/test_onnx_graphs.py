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
    model = family.load("tiny", "random", Path(), 0)  # whose norms are all ones, and whose biases are all zeros
    distinct = {(each.shape, each.sum().item(), each.std().item()) for each in model.module.parameters()}
    least = sum(
        shape.numel() for shape, _, spread in distinct if spread
    )  # adding 0 and multiplying by 1 may be left out
    total = sum(each.numel() for each in model.module.parameters())
    assert least <= size.in_memory(compress(chain, family, model).module)["size/params"] < total


def test_the_memory_of_outputs_is_used_again(tmp_path: Path) -> None:
    call = opened(
        "openvino", graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=Running()), tmp_path
    )
    total = torch.zeros(2, 8)
    for _ in range(6):
        (total,) = call(total)
    assert len(call._requests) == 2  # one holds the input, the other the output
