"""Nested values: leaves, and trees of the same structure, for every kind of container."""

from __future__ import annotations

import collections
import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import rnn

from mlflow_compress.networks import value_trees

ONE, TWO = torch.ones(2), torch.full((3,), 2.0)


@dataclass(frozen=True)
class Answer:
    """An output of a module."""

    logits: Any
    count: int = 3
    made: float = field(init=False, default=0.5)


class Pair(NamedTuple):
    """An output of a module."""

    first: Any
    second: Any


def doubled(tree: Any) -> Any:
    """Return the tree with all tensors doubled."""
    return value_trees.mapped(lambda leaf: leaf * 2 if isinstance(leaf, torch.Tensor) else leaf, tree)


def test_leaves_are_found_in_everything_that_holds_values_with_the_way_to_each() -> None:
    tree = {"logits": ONE, "hidden": (TWO, [None, 3]), "answer": Answer(ONE), "pair": Pair("text", TWO)}
    paths = dict(value_trees.named_leaves(tree))
    assert list(paths) == [
        ("logits",), ("hidden", 0), ("hidden", 1, 0), ("hidden", 1, 1), ("answer", "logits"), ("answer", "count"),
        ("answer", "made"), ("pair", "first"), ("pair", "second"),
    ]  # fmt: skip
    assert paths["hidden", 1, 1] == 3
    assert [len(tensor) for tensor in value_trees.tensors(tree)] == [2, 3, 2, 3]
    assert value_trees.leaves(ONE)[0] is ONE
    assert value_trees.leaves([]) == value_trees.leaves({}) == []


def test_a_mapped_tree_has_the_same_structure_and_leaves_the_given_one_alone() -> None:
    tree = [Answer(ONE), Pair(ONE, None), collections.OrderedDict(x=ONE), collections.UserDict(y=ONE), (ONE,)]
    mapped = doubled(tree)
    assert [type(value) for value in mapped] == [type(value) for value in tree]
    assert torch.equal(mapped[0].logits, ONE * 2)
    assert (mapped[0].count, mapped[0].made) == (3, 0.5)
    assert torch.equal(mapped[1].first, ONE * 2)
    assert mapped[1].second is None
    assert torch.equal(mapped[2]["x"], ONE * 2)
    assert torch.equal(mapped[3]["y"], ONE * 2)
    assert all(torch.equal(tensor, ONE) for tensor in value_trees.tensors(tree))


def test_outputs_of_transformers_are_opened_and_made_again() -> None:
    from transformers.modeling_outputs import SequenceClassifierOutput

    mapped = doubled(SequenceClassifierOutput(logits=ONE))
    assert isinstance(mapped, SequenceClassifierOutput)
    assert torch.equal(value_trees.tensors(mapped)[0], ONE * 2)
    assert list(value_trees.named_leaves(mapped)) == [(("logits",), mapped.logits)]


def test_only_floating_point_tensors_are_cast() -> None:
    array = np.zeros(2)
    tree = {"x": ONE, "ids": torch.arange(2), "mask": torch.tensor([True]), "scale": 2.0, "text": "a", "array": array}
    placed = value_trees.placed(tree, "cpu", torch.bfloat16)
    assert placed["x"].dtype == torch.bfloat16
    assert (placed["ids"].dtype, placed["mask"].dtype) == (torch.int64, torch.bool)
    assert (placed["scale"], placed["text"], placed["array"] is array) == (2.0, "a", True)
    assert value_trees.placed(torch.ones(1, dtype=torch.complex64), "cpu", torch.float64).dtype == torch.complex64
    assert value_trees.placed(tree, "meta")["ids"].device.type == "meta"


def test_packed_sequences_are_cast_and_their_lengths_stay() -> None:
    packed = rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    placed = value_trees.placed(packed, "cpu", torch.float64)
    assert isinstance(placed, rnn.PackedSequence)
    assert placed.data.dtype == torch.float64
    assert placed.batch_sizes.tolist() == [2, 1, 1]
    assert [tensor.numel() for tensor in value_trees.tensors(packed)] == [8, 3]


def test_trees_are_equal_where_names_and_values_are_and_nan_is_nan() -> None:
    nan = torch.tensor([1.0, float("nan"), -float("inf")])
    assert value_trees.is_equal({"x": nan, "n": 3}, {"x": nan.clone(), "n": 3})
    assert not value_trees.is_equal({"x": nan}, {"y": nan})
    assert not value_trees.is_equal([ONE], [TWO])
    assert not value_trees.is_equal([3], [4])
    assert value_trees.is_equal(Answer(np.ones(2)), Answer(np.ones(2)))
    assert not value_trees.is_equal(Answer(np.ones(2)), dataclasses.replace(Answer(np.ones(2)), count=4))


def test_bytes_are_those_of_tensors_and_arrays() -> None:
    assert value_trees.counted_bytes({"x": ONE, "y": [np.zeros(3, dtype=np.int8), "text", None, 2.0]}) == 8 + 3
