"""A user's samples: read in any form, and combined like the batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks import own_samples, value_trees
from mlflow_compress.networks.own_samples import Guide

ONE = torch.arange(4.0)


class Pairs(torch.utils.data.Dataset[Any]):
    """A torch Dataset that only its length ends."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return ONE + index, torch.tensor(index)


@dataclass
class Inputs:
    x: Any
    bias: Any


@pytest.mark.parametrize(
    "source",
    [
        [(ONE, 0), (ONE + 1, 1)],
        ([ONE + n, n] for n in range(2)),
        Pairs(),
        torch.utils.data.DataLoader(Pairs(), batch_size=2),
        [{"inputs": ONE, "label": 0}, {"inputs": ONE + 1, "label": np.int64(1)}],
    ],
)
def test_samples_are_read_in_any_form(source: Any) -> None:
    samples = own_samples.read(source, "own.py: samples()")
    assert [sample.reference for sample in samples] == [0, 1]
    assert all(type(sample.reference) is int for sample in samples)
    assert [float(sample.inputs[0]) for sample in samples] == [0, 1]


def test_a_mapping_of_several_inputs_stays_one() -> None:
    sample = own_samples.read([{"x": ONE, "mask": ONE, "y": 2.5}], "")[0]
    assert (list(sample.inputs), sample.reference) == (["x", "mask"], 2.5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, r"samples\(\) returned a int: return a list of pairs"),
        ([(ONE, 0), (ONE, ONE, 0)], r"samples\(\), sample 2 is 3 values: .*\(\(one, other\), reference\)"),
        ([ONE], r"sample 1 is a Tensor"),
        ([{"x": ONE}], "sample 1 has the keys x: it must have one of reference, label"),
    ],
)
def test_other_things_are_refused_with_their_place(source: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        own_samples.read(source, "own.py: samples()")


def put_together(batch: Any, samples: list[Any], at_once: int | None = None) -> list[Any]:
    return Guide(batch(1), batch(2)).arguments(samples, at_once)


def test_inputs_are_stacked_along_the_axis_of_the_batch() -> None:
    assert put_together(lambda size: [torch.ones(size, 4)], [[0, 1, 2, 3], ONE])[0][0].tolist() == [[0, 1, 2, 3]] * 2
    assert put_together(lambda size: [torch.ones(5, size, 4)], [torch.ones(5, 4)] * 3)[0][0].shape == (5, 3, 4)
    assert put_together(lambda size: [torch.ones(size, 4)], [torch.ones(1, 4)] * 3)[0][0].shape == (3, 4)


def test_values_that_are_not_tensors_come_from_the_batch() -> None:
    (inputs,) = put_together(lambda size: [torch.ones(size, 4), 2.0, "sum"], [ONE, ONE])
    assert (inputs[0].shape, inputs[1:]) == ((2, 4), [2.0, "sum"])


@pytest.mark.parametrize(
    ("batch", "sample"),
    [
        (lambda size: [torch.ones(size, 4), torch.ones(size, 2)], (ONE, ONE[:2])),
        (lambda size: [torch.ones(size, 4), 3, torch.ones(size, 2)], (ONE, ONE[:2])),
        (lambda size: {"x": torch.ones(size, 4), "y": torch.ones(size, 2)}, {"y": ONE[:2], "x": ONE}),
        (lambda size: [{"x": torch.ones(size, 4), "y": torch.ones(size, 2)}], {"x": ONE, "y": ONE[:2]}),
        (lambda size: [Inputs(torch.ones(size, 4), torch.ones(size, 2))], Inputs(ONE, ONE[:2])),
        (lambda size: [(torch.ones(size, 4), [torch.ones(size, 2)])], (ONE, [ONE[:2]])),
    ],
)
def test_several_inputs_are_put_together(batch: Any, sample: Any) -> None:
    (inputs,) = put_together(batch, [sample] * 3)
    shapes = [tuple(tensor.shape) for tensor in value_trees.tensors(inputs)]
    assert shapes == [(3, 4), (3, 2)]
    assert [type(value) for value in value_trees.leaves(inputs)] == [
        type(value) for value in value_trees.leaves(batch(1))
    ]


def test_inputs_of_other_lengths_go_one_by_one() -> None:
    calls = put_together(lambda size: [torch.ones(size, 4)], [torch.ones(3), torch.ones(5)])
    assert [tuple(call[0].shape) for call in calls] == [(1, 3), (1, 5)]
    (inputs,) = put_together(lambda size: [[torch.ones(3, 4)] * size], [torch.ones(3, 4), torch.ones(5, 4)])
    assert [tuple(tensor.shape) for tensor in inputs[0]] == [(3, 4), (5, 4)]  # a list may contain samples of any shape


def test_a_call_of_a_fixed_number_is_filled_up() -> None:
    calls = put_together(lambda size: [torch.ones(size, 4)], [ONE, ONE + 1, ONE + 2], at_once=2)
    assert [call[0][:, 0].tolist() for call in calls] == [[0, 1], [2, 2]]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (ONE, r"takes 2 inputs, but a sample is a Tensor without 0, 1"),
        ({"x": ONE}, "a sample is a dict without 0, 1"),
        ((ONE, object()), "A sample's object can't be converted to a tensor"),
    ],
)
def test_samples_that_are_not_inputs_are_reported(sample: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        put_together(lambda size: [torch.ones(size, 4), torch.ones(size, 4)], [sample])
