"""A module is called on a batch by position, by name, or with one argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

from mlflow_compress.networks import module_calls

ONE = torch.ones(2)


class Pair(NamedTuple):
    """A batch of a user."""

    x: Any
    bias: Any


class One(nn.Module):
    def forward(self, inputs: Any, flag: bool = False) -> Any:
        return inputs


class Two(nn.Module):
    def forward(self, x: Any, bias: Any) -> Any:
        return x, bias


class Named(nn.Module):
    def forward(self, *, x: Any, bias: Any = None) -> Any:
        return x, bias


class Many(nn.Module):
    def forward(self, **tensors: Any) -> Any:
        return tensors


@pytest.mark.parametrize(
    ("batch", "module", "expected"),
    [
        (ONE, One(), "one"),
        ((ONE,), One(), "by position"),
        ((ONE, ONE), Two(), "by position"),
        ((ONE, ONE, ONE), One(), "one"),
        ({"x": ONE, "bias": ONE}, One(), "one"),
        ({"x": ONE, "bias": ONE}, Two(), "by name"),
        ({"bias": ONE, "x": ONE}, Named(), "by name"),
        ({"anything": ONE}, Many(), "by name"),
        ({"inputs": ONE}, One(), "by name"),
        (Pair(ONE, ONE), One(), "one"),
        (Pair(ONE, ONE), Two(), "by position"),
        ([ONE, ONE], Two(), "by position"),
        (rnn.pack_sequence([ONE]), One(), "one"),
    ],
)
def test_a_batch_is_passed_as_forward_takes_it(batch: Any, module: nn.Module, expected: str) -> None:
    assert module_calls.passing(batch, module, lambda: batch) == expected


def test_a_list_as_long_as_the_batch_holds_samples() -> None:
    def batch(size: int) -> list[Any]:
        return [ONE] * size

    assert module_calls.passing(batch(2), One(), lambda: batch(3)) == "one"
    assert module_calls.passing(batch(1), One(), lambda: batch(2)) == "one"

    def failing() -> Any:
        raise ValueError

    assert module_calls.passing([ONE, ONE], Two(), failing) == "by position"


@pytest.mark.parametrize("make", [lambda: {"bias": 1, "x": 0}, lambda: (0, 1)])
def test_arguments_are_in_the_order_of_forward(make: Callable[[], Any]) -> None:
    module, batch = Two(), make()
    passing = module_calls.passing(batch, module, make)
    arguments = module_calls.arguments(batch, passing, module)
    assert module_calls.called(module, arguments) == (0, 1)
    assert module_calls.named(arguments, module) == {"x": 0, "bias": 1}
    assert list(module_calls.named(arguments, module)) == ["x", "bias"]
