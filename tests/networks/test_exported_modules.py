"""An exported module has the same arguments and outputs as the original."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pytest
import torch

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import module_calls, value_trees
from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.networks.exported_modules import CallForm, ExportedModule, filled, form_of
from mlflow_compress.networks.module_graphs import graph_of

ONE, TWO = torch.arange(3.0), torch.ones(2)


@dataclass
class Answer:
    """An output of a module."""

    logits: Any
    extra: Any = None


class Pair(NamedTuple):
    """An output of a module."""

    first: Any
    second: Any


NAMES = {"Answer": Answer, "Pair": Pair}


class Giving(torch.nn.Module):
    def __init__(self, give: Callable[..., Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, values: Any, scale: Any = 1.0) -> Any:
        return self.give(values, scale)


@pytest.mark.parametrize(
    "give",
    [
        lambda values, scale: values * 2,
        lambda values, scale: (values * 2, values + 1),
        lambda values, scale: [values * 2],
        lambda values, scale: {"double": values * 2, "next": values + 1},
        lambda values, scale: {"logits": values * scale, "hidden": (values + 1, [values - 1, None]), "n": 3},
        lambda values, scale: Answer(values * 2),
        lambda values, scale: Pair(values * 2, Answer(values)),
    ],
)
def test_the_exported_module_gives_what_the_module_gave(give: Callable[..., Any]) -> None:
    module = Giving(give)
    graph, form = graph_of(module, lambda size, seed: [torch.ones(size, 4), 2.0], 1, NAMES)
    assert (list(graph.inputs), dict(graph.dynamic)["values"]) == (["values"], {0: "batch"})
    assert isinstance(graph.module(torch.ones(2, 4)), tuple)
    form = CallForm.of_json(json.loads(json.dumps(asdict(form))))
    exported = ExportedModule({"model": TorchCall(graph.module)}, form, NAMES)
    inputs = torch.rand(5, 4)
    output, expected = exported(inputs, 2.0), module(inputs, 2.0)
    assert type(output) is type(expected)
    assert value_trees.is_equal(output, expected)
    with pytest.raises(ValueError, match=r"exported with the constant argument 2\.0 and can't take 3\.0"):
        exported(inputs, 3.0)


def test_arguments_by_name_and_nested_ones_are_taken_as_they_were() -> None:
    module = Giving(lambda values, scale: values["x"] + values["bias"][0] * scale)
    arguments = {"values": {"x": torch.ones(1, 2), "bias": [torch.ones(1, 2)]}, "scale": torch.tensor(3.0)}
    graph, form = graph_of(module, lambda size, seed: arguments, 1)
    assert list(graph.inputs) == ["values_x", "values_bias_0", "scale"]
    exported = ExportedModule({"model": TorchCall(graph.module)}, form)
    assert torch.equal(module_calls.called(exported, arguments), module(**arguments))


@pytest.mark.parametrize("by_name", [True, False])
def test_arguments_by_name_may_come_in_any_order(by_name: bool) -> None:
    module = Giving(lambda values, scale: values - 10 * scale)
    values, scale = torch.arange(3.0), torch.ones(3)
    batch: Any = {"values": values, "scale": scale} if by_name else [values, scale]
    graph, form = graph_of(module, lambda size, seed: batch, 1)
    exported = ExportedModule(
        {"model": TorchCall(graph.module)}, CallForm.of_json(json.loads(json.dumps(asdict(form))))
    )
    assert exported(scale=scale, values=values).tolist() == [-10, -9, -8]
    assert exported(values=values, scale=scale).tolist() == [-10, -9, -8]
    for refused in ({"values": values}, {"values": values, "scale": scale, "more": scale}):
        with pytest.raises(TypeError, match=r"was exported for the arguments values, scale \("):
            exported(**refused)
    if by_name:
        with pytest.raises(TypeError, match=r"\(by name\); it got 2 by position and these by name: none"):
            exported(values, scale)
    else:
        assert exported(values, scale=scale).tolist() == exported(values, scale).tolist() == [-10, -9, -8]


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda values, scale: None, "returns no tensor but a NoneType"),
        (lambda values, scale: (values, float(values.sum())), "depend on its inputs"),
        (lambda values, scale: (values, object()), "returns a object, which an exported graph can't return"),
        (lambda values, scale: Answer(values), "returns a Answer, which an exported graph can't return"),
    ],
)
def test_outputs_that_no_graph_can_return_are_rejected_with_a_message(give: Callable[..., Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        graph_of(Giving(give), lambda size, seed: [torch.rand(size, 4)], 1)


def test_inputs_that_no_graph_can_take_are_rejected_with_a_message() -> None:
    module = Giving(lambda values, scale: torch.ones(1))
    with pytest.raises(Unsupported, match="takes no tensor"):
        graph_of(module, lambda size, seed: [2.0], 1)
    with pytest.raises(Unsupported, match="takes a ndarray"):
        graph_of(module, lambda size, seed: [torch.ones(1), torch.ones(1).numpy()], 1)


def test_a_module_of_one_batch_size_says_so() -> None:
    _, form = graph_of(Giving(lambda values, scale: values.view(2, 3)), lambda size, seed: [torch.ones(6)], 4)
    assert form.samples is None  # called for two and three samples, it takes six numbers each time
    _, form = graph_of(Giving(lambda values, scale: values.view(4, 3)), lambda size, seed: [torch.ones(size, 3)], 4)
    assert form.samples == 4


def test_forms_that_0_1_wrote_are_read() -> None:
    cases: list[tuple[Any, list[Any], Any]] = [
        ("tensor", [ONE], ONE),
        ("tuple", [ONE, TWO], (ONE, TWO)),
        (["b", "a"], [TWO, ONE], {"b": TWO, "a": ONE}),
    ]
    for form, tensors, expected in cases:
        assert value_trees.is_equal(filled(CallForm.of_json(form).output, iter(tensors)), expected)
    assert form_of(ONE) == "tensor"
