"""The check of an exported graph on other values and on a batch of another size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress.compression import export_check
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.sockets import Graph


class Net(nn.Module):
    """A module that computes a function of its layer and the inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.function, self.calls = nn.Linear(4, 4), function, 0

    def forward(self, *inputs: Any) -> Any:
        self.calls += 1
        return self.function(self, *inputs)


def graph_of(function: Callable[..., Any], dynamic: bool = True, **inputs: Any) -> Graph:
    torch.manual_seed(0)
    inputs = inputs or {"x": torch.rand(2, 4)}
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in (*inputs, "output")} if dynamic else {}
    return graph(_called, inputs, ["output"], axes, module=Net(function).eval())


def _called(parts: Any, *inputs: Any) -> tuple[Any, ...]:
    return tuple(value_trees.tensors(parts.module(*inputs)))


def traced(graph: Graph) -> Callable[..., tuple[Any, ...]]:
    with torch.no_grad():
        call: Callable[..., tuple[Any, ...]] = torch.jit.trace(
            graph.module, tuple(graph.inputs.values()), check_trace=False
        )
    return call


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.layer(x) if x.sum() > 0 else -net.layer(x),
        lambda net, x: net.layer(x) if x.max() < 3 else net.layer(x) * 2,
        lambda net, x: net.layer(x) * float(x.mean()),
    ],
)
def test_a_path_that_depends_on_values_is_found(function: Callable[..., Any]) -> None:
    graph = graph_of(function, dynamic=False)
    with pytest.raises(
        Unsupported, match=r"for other values the exported graph differs from the module by \d+%.*only the path"
    ):
        require_alike(graph, traced(graph), 1e-3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "decides",
    [
        lambda ids: (ids == 0).any(),
        lambda ids: ids.max() > 2,
        lambda ids: ids.sum() == 20,
        lambda ids: ids.float().mean() > 1.2,
    ],
)
def test_a_path_that_depends_on_whole_numbers_is_found(decides: Callable[..., Any]) -> None:
    ids = torch.tensor([[0, 1, 3, 1, 2, 1], [2, 2, 1, 3, 2, 2]])
    assert bool(decides(ids))

    def function(net: Net, ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(ids, net.layer.weight)
        return rows if decides(ids) else -rows

    graph = graph_of(function, dynamic=False, ids=ids)
    with pytest.raises(Unsupported, match=r"for other values the exported graph differs from the module by \d+%"):
        require_alike(graph, traced(graph), 1e-3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_path_of_texts_that_are_filled_up_is_found_by_an_example_without_filling() -> None:
    def function(net: Net, ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(ids % 4, net.layer.weight)
        return -rows if (ids == 0).any() else rows

    graph = graph_of(function, dynamic=False, ids=torch.tensor([[7, 5, 9, 3], [5, 5, 8, 2]]))
    with pytest.raises(Unsupported, match="for other values the exported graph differs from the module by 200%"):
        require_alike(graph, traced(graph), 1e-3)


def test_positions_stay_each_once() -> None:
    def function(net: Net, places: torch.Tensor) -> torch.Tensor:
        return net.layer.weight.new_zeros(4, 4).index_copy(0, places, net.layer.weight)

    graph = graph_of(function, dynamic=False, places=torch.arange(4))
    orders: list[list[int]] = []

    def call(places: torch.Tensor) -> tuple[Any, ...]:
        orders.append(places.tolist())
        return tuple(graph.module(places))

    require_alike(graph, call, 1e-3)
    assert len(orders) == 4
    assert all(sorted(places) == [0, 1, 2, 3] for places in orders)


def test_numbers_that_stand_for_infinity_are_infinite() -> None:
    """Runtimes write masks of float32's smallest number as infinity, or infinity as that number."""
    graph = graph_of(lambda net, x: net.layer(x).masked_fill(x > 0.5, torch.finfo(torch.float32).min))
    call = graph_of(lambda net, x: net.layer(x).masked_fill(x > 0.5, float("-inf"))).module
    require_alike(graph, call, 1e-3)


def test_a_zero_is_not_nan() -> None:
    graph = graph_of(lambda net, x: torch.full_like(x, float("nan")))
    with pytest.raises(Unsupported, match="differs from the module in its shape, or in values that are not finite"):
        require_alike(graph, lambda x: (torch.zeros_like(x),), 1e-3)


def test_what_is_nan_for_drawn_inputs_only_is_compared_elsewhere() -> None:
    graph = graph_of(lambda net, x: torch.log(x))
    require_alike(graph, lambda x: (torch.log(x.clamp_min(1e-30)),), 1e-3)
    with pytest.raises(Unsupported, match="differs from the module by 100%"):
        require_alike(graph, lambda x: (2 * torch.log(x.clamp_min(1e-30)),), 1e-3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_a_mask_hides_no_whole_row_unless_one_of_the_example_is_hidden(dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]] * 50, dtype=dtype)
    drawn = export_check._redrawn(mask, torch.Generator().manual_seed(0), is_upper=True)
    assert not torch.equal(drawn, mask)
    assert all(0 < int(row.sum()) < 4 for row in drawn)
    mask[0] = 1
    drawn = export_check._redrawn(mask, torch.Generator().manual_seed(0), is_upper=True)
    assert {int(row.sum()) for row in drawn} == {1, 2, 3, 4}


def test_a_small_difference_may_be_rounding() -> None:
    graph = graph_of(lambda net, x: net.layer(x))
    for factor, message in (
        (1.1, "by 10%: .* for the example, or its runtime rounds more here$"),
        (3, "for the example$"),
    ):
        with pytest.raises(Unsupported, match=message):
            require_alike(graph, lambda x, factor=factor: (graph.module(x)[0] * factor,), 1e-3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_length_that_was_written_down_is_found() -> None:
    graph = graph_of(lambda net, x: net.layer(x) * float(x.shape[0]))
    with pytest.raises(Unsupported, match="for a batch of 3 the exported graph differs from the module by 33%"):
        require_alike(graph, traced(graph), 1e-3)
    graph = graph_of(lambda net, x: net.layer(x).reshape(int(x.shape[0]), 2, 2))
    with pytest.raises(Unsupported, match="for a batch of 3 the exported graph fails where the module does not: "):
        require_alike(graph, traced(graph), 1e-3)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda net, x: net.layer(x), {}),
        (lambda net, x: net.layer(x).masked_fill(x > 0.5, float("-inf")), {}),
        (lambda net, x: net.layer(x).argmax(-1), {}),
        (lambda net, x: net.layer(x).to(torch.complex64) * 1j, {}),
        (lambda net, x: torch.log(x), {}),  # NaN for negated x
        (
            lambda net, ids: nn.functional.embedding(ids, net.layer.weight),
            {"ids": torch.tensor([[0, 1, 3], [2, 2, 0]])},
        ),
        (lambda net, x, scale: net.layer(x) * scale, {"x": torch.rand(2, 4), "scale": torch.tensor(3)}),
        (lambda net, x: net.layer(x.mul_(2)), {}),  # writes into its input
    ],
)
def test_what_computes_the_same_passes(function: Callable[..., Any], inputs: dict[str, Any]) -> None:
    graph = graph_of(function, dynamic=not inputs, **inputs)
    require_alike(graph, traced(graph), 1e-3)
    assert graph.module.module.calls > 8, "it was compared"


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.layer(x) + torch.rand(1),
        lambda net, x: net.layer(x) * net.calls,
        lambda net, x: net.layer(x) if torch.equal(x, torch.rand(0)) else net.no_such_layer(x),
    ],
)
def test_what_a_module_does_not_repeat_is_not_compared(function: Callable[..., Any]) -> None:
    require_alike(graph_of(function), lambda x: (torch.zeros(0),), 1e-3)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: (torch.full((len(x), 4), float("nan")),),
        lambda x: (torch.zeros(len(x), 4), torch.zeros(1)),
        lambda x: (torch.zeros(len(x), 3),),
    ],
)
def test_outputs_of_another_kind_are_found(call: Callable[..., Any]) -> None:
    with pytest.raises(
        Unsupported,
        match=r"for other values the exported graph (differs from the module in its shape|gives 2 outputs, not 1)",
    ):
        require_alike(graph_of(lambda net, x: net.layer(x)), call, 1e-3)
