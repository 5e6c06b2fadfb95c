"""A module of anybody's, exported: what it gives keeps its form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.networks.exported_modules import ExportedModule, flattened, form_of, module_graph

ONE, TWO = torch.arange(3.0), torch.ones(2)


class Giving(torch.nn.Module):
    def __init__(self, give: Callable[[Any], Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, values: Any) -> Any:
        return self.give(values)


@pytest.mark.parametrize(
    ("output", "form", "flat"),
    [
        (ONE, "tensor", [ONE]),
        ((ONE, TWO), "tuple", [ONE, TWO]),
        ([ONE], "tuple", [ONE]),
        ({"b": TWO, "a": ONE}, ["b", "a"], [TWO, ONE]),
    ],
)
def test_an_output_has_a_form_and_tensors(output: Any, form: Any, flat: list[Any]) -> None:
    assert form_of(output) == form
    assert all(map(torch.equal, flattened(output), flat))
    assert len(flattened(output)) == len(flat)


@pytest.mark.parametrize(
    "give",
    [
        lambda values: values * 2,
        lambda values: (values * 2, values + 1),
        lambda values: {"double": values * 2, "next": values + 1},
    ],
)
def test_the_exported_module_gives_what_the_module_gave(give: Callable[[Any], Any]) -> None:
    module = Giving(give)
    expected = module(ONE)
    names = [f"output_{index}" for index in range(len(flattened(expected)))]
    graph = module_graph(module, {"values": ONE}, names, {"values": {0: "batch"}})
    assert (list(graph.inputs), graph.outputs, graph.dynamic) == (["values"], tuple(names), {"values": {0: "batch"}})
    assert isinstance(graph.module(ONE), tuple)
    exported = ExportedModule({"model": TorchCall(graph.module)}, form_of(expected))
    given = exported(ONE)
    assert type(given) is type(expected)
    assert form_of(given) == form_of(expected)
    assert all(map(torch.equal, flattened(given), flattened(expected)))
