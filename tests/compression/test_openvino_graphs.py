"""Graphs in OpenVINO: their names and free axes, and the detection of convolutional networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("openvino")

from mlflow_compress.compression import openvino_graphs
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.export_graphs import graph


def written(module: nn.Module, example: torch.Tensor, folder: Path) -> Any:
    exported = graph(
        lambda parts, x: (parts.module(x),),
        {"x": example},
        ["y"],
        {"x": {0: "batch"}, "y": {0: "batch"}},
        module=module,
    )
    openvino_graphs.write(exported, folder / "model.xml")
    import openvino

    return openvino.Core().read_model(folder / "model.xml")


def test_names_and_free_axes_are_written(tmp_path: Path) -> None:
    model = written(nn.Linear(4, 3), torch.rand(2, 4), tmp_path)
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["x", "y"]
    assert str(model.inputs[0].get_partial_shape()) == "[?,4]"
    assert (tmp_path / "model.bin").stat().st_size >= 4 * (4 * 3 + 3)


def test_a_compiled_graph_takes_other_batch_sizes(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False)
    written(module, torch.rand(2, 4), tmp_path)
    run = openvino_graphs.Compiled(tmp_path / "model.xml", [], "f32")
    for size in (1, 5):
        inputs = torch.rand(size, 4)
        (output,) = run(inputs)
        torch.testing.assert_close(output, module(inputs), rtol=1e-4, atol=1e-5)


def test_what_most_weights_are_of_tells_convolutional_nets(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(576, 1)).requires_grad_(False)
    (tmp_path / "a").mkdir()
    assert not openvino_graphs.is_convolutional(written(net, images, tmp_path / "a"))  # 576 of its weights are linear
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
    (tmp_path / "b").mkdir()
    assert openvino_graphs.is_convolutional(written(net.requires_grad_(False), images, tmp_path / "b"))


class Decomposed(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.linalg.svd(x)[0]


def test_operators_that_openvino_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"^OpenVINO can't convert the model: it does not support aten::linalg_svd$"):
        written(Decomposed(), torch.rand(3, 3), tmp_path)


class GivingBack(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x, x * 2


def test_an_output_that_is_an_input_outlives_it(tmp_path: Path) -> None:
    exported = graph(lambda parts, x: parts.module(x), {"x": torch.ones(2, 4)}, ["y", "z"], {}, module=GivingBack())
    openvino_graphs.write(exported, tmp_path / "model.xml")
    call = openvino_graphs.Compiled(tmp_path / "model.xml", (), "f32")
    inputs = torch.full((2, 4), 3.0)
    returned, doubled = call(inputs)
    inputs.fill_(7.0)  # as if the memory were reused
    assert (returned.unique().tolist(), doubled.unique().tolist()) == ([3.0], [6.0])
