"""Graphs of fixed shapes: samples one by one, shorter texts filled with zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_compress.compression.fixed_shapes import FixedCall, FixedShapes, first_samples, fixed
from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.sockets import Graph


def text(kind: torch.dtype = torch.int64) -> Graph:
    ids, mask = torch.arange(10, dtype=kind).reshape(2, 5), torch.ones(2, 5, dtype=kind)
    axes = {name: {0: "batch", 1: "tokens"} for name in ("ids", "mask", "states")}
    return graph(
        lambda parts, ids, mask: ((ids * mask).float(), (ids * mask).sum(1, keepdim=True)),
        {"ids": ids, "mask": mask},
        ["states", "total"],
        {**axes, "total": {0: "batch"}},
        layer=torch.nn.Linear(3, 2),
    )


def test_a_graph_takes_its_first_sample_only() -> None:
    plain = fixed(text())
    assert [tuple(tensor.shape) for tensor in plain.inputs.values()] == [(1, 5), (1, 5)]
    assert plain.dynamic == {}
    assert first_samples(text())[0].tolist() == [[0, 1, 2, 3, 4]]


def test_types_that_phones_do_not_have_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="takes no float64 inputs, and ids has this type"):
        fixed(text(torch.float64))


def test_samples_run_one_by_one_and_are_filled_and_cut(tmp_path: Path) -> None:
    original = text()
    FixedShapes.of(original).write(tmp_path / "shapes.json")
    shapes = FixedShapes.read(tmp_path / "shapes.json")
    assert shapes == FixedShapes.of(original)
    assert (shapes.parameters, shapes.nonzero) == (8, 8)
    seen: list[tuple[Any, ...]] = []

    def run(*inputs: Any) -> list[Any]:
        seen.append(tuple(tuple(tensor.shape) for tensor in inputs))
        return list(original.module(*inputs))

    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    states, total = FixedCall(shapes, run)(ids, torch.ones_like(ids))
    assert seen == [((1, 5), (1, 5))] * 3
    assert states.tolist() == ids.tolist()
    assert total.tolist() == [[6], [15], [24]]


def test_a_longer_text_is_an_error_that_names_the_option() -> None:
    call = FixedCall(FixedShapes.of(text()), lambda *inputs: list(inputs))
    with pytest.raises(ValueError, match=r"exported for 5 tokens and can't take 6: .*family option \(tokens\)"):
        call(torch.ones(1, 6), torch.ones(1, 6))


def test_a_graph_without_a_batch_is_called_once() -> None:
    plain = graph(lambda parts, x: (2 * x,), {"x": torch.ones(3)}, ["y"])
    call = FixedCall(FixedShapes.of(plain), lambda x: [2 * x])
    assert call(torch.ones(3))[0].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"inputs": [[1]]}', '{"inputs": 3, "input_axes": [], "output_axes": []}']
)
def test_a_broken_file_of_shapes_is_a_weights_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(WeightsError, match="can't be read"):
        FixedShapes.read(tmp_path / "model.json")
