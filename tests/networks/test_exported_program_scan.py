"""Graphs of torch.export are checked: honest graphs pass, whatever they contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_compress.networks.exported_program_scan import code_in_program


class Dynamic(torch.nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        joined = torch.cat([x, y[:, : x.shape[1]]], 0)
        return {"sum": joined.sum(0) / x.shape[0], "half": (joined[: joined.shape[0] // 2], y.mean())}


class Tied(torch.nn.Module):
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.register_buffer("mask", torch.tensor([True, False, True]), persistent=False)
        self.table = torch.nn.Embedding(4, 3)

    def forward(self, x: Any, index: Any) -> Any:
        masked = torch.where(self.mask, self.one(x), torch.tensor(float("-inf")))
        with torch.no_grad():
            shifted = self.table(index).to(torch.bfloat16)
        keys, values = shifted.float(), self.other(x)
        return torch.nn.functional.scaled_dot_product_attention(masked[None], keys[None], values[None])


def exported(path: Path, net: torch.nn.Module, arguments: Any, **options: Any) -> Path:
    torch.export.save(torch.export.export(net, arguments, strict=False, **options), path)
    return path


AUTO = torch.export.Dim.DYNAMIC


@pytest.mark.parametrize(
    ("net", "arguments", "axes"),
    [
        (Dynamic(), (torch.rand(2, 4), torch.rand(3, 5)), ({0: AUTO, 1: AUTO}, {0: AUTO, 1: AUTO})),
        (Tied(), (torch.rand(4, 3), torch.tensor([0, 1, 2, 3])), None),
        (torch.nn.LSTM(4, 5, bidirectional=True), (torch.rand(3, 2, 4),), None),
        (torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval(), (torch.rand(3, 2, 8),), ({0: AUTO},)),
    ],
)
def test_honest_graphs_are_let_through(net: torch.nn.Module, arguments: Any, axes: Any, tmp_path: Path) -> None:
    shapes = dict(zip(("x", "y"), axes, strict=False)) if isinstance(net, Dynamic) else axes
    path = exported(tmp_path / "model.pt2", net, arguments, dynamic_shapes=shapes)
    assert code_in_program(path) == ""
    torch.export.load(path).module()(*arguments)


def test_another_kind_of_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "text.pt2").write_text("no archive")
    assert code_in_program(tmp_path / "text.pt2") == "parts that can't be read: File is not a zip file"
    torch.save({"weight": torch.ones(2)}, tmp_path / "state.pt2")
    assert code_in_program(tmp_path / "state.pt2") == "'data.pkl', which is not part of a graph"
    assert "No such file" in code_in_program(tmp_path / "gone.pt2")
