"""Outputs are compared part by part, with NaN and infinity in their places."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlflow_compress.networks import random_state
from mlflow_compress.networks.output_parts import Observed, farthest, odd_places
from mlflow_compress.networks.stored_weights import flat

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("ours", "theirs", "moved"),
    [
        ([1.0, 2.0, -INF], [1.0, 2.0, -INF], 0.0),
        ([1.0, 4.0, NAN], [1.0, 3.0, NAN], 1 / math.sqrt(10)),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, -INF], INF),
        ([1.0, -INF], [1.0, -3.4e38], 0.0),  # the mask of float32, in bfloat16
        ([1.0, -65504.0], [1.0, -3.4e38], 0.0),  # the same in float16
        ([1.0, -65472.0], [1.0, -INF], 0.0),
        ([1.0, -3.4e38], [1.0, -65504.0], 0.0),
        ([1.0, -3.4e38], [1.0, 3.4e38], INF),
        ([1.0, 3.4e38], [1.0, 2.0], INF),
        ([1.0, INF], [1.0, 7e4], INF),  # it has overflown
        ([3.0, 7e4], [3.0, 7e4], 0.0),
        ([-INF, -INF], [-INF, -INF], 0.0),
        ([1.0], [1.0, 2.0], INF),
    ],
)
def test_numbers_are_compared_and_others_must_be_the_same(ours: list[float], theirs: list[float], moved: float) -> None:
    assert farthest([torch.tensor(ours)], [torch.tensor(theirs)], [0.0]) == pytest.approx(moved)


def test_the_part_that_differs_most_counts() -> None:
    hundreds, ones, empty = torch.ones(4) * 100, torch.ones(4), torch.zeros(0)
    assert farthest([hundreds, ones * 2, empty], [hundreds, ones, empty], [0.0] * 3) == 1.0
    assert math.isnan(farthest([empty], [empty], [0.0]))
    assert farthest([hundreds], [hundreds, ones], [0.0]) == INF


def test_places_that_only_one_has_are_counted() -> None:
    ours, theirs = torch.tensor([NAN, 1.0, -INF, 2.0]), torch.tensor([NAN, 1.0, 3.0, -INF])
    assert odd_places([ours], [theirs]) == 2
    assert odd_places([ours], [ours]) == 0


def test_numbers_arrays_and_any_kind_of_tensor_are_one_vector() -> None:
    tree = {"a": torch.tensor([1, 2]), "b": [None, "text", 3, True], "c": np.ones(2), "d": torch.tensor(1 + 2j)}
    assert flat(tree).tolist() == [1, 2, 3, 1, 1, 1, 1, 2]
    assert flat(torch.eye(2).to_sparse()).tolist() == [1, 0, 0, 1]
    assert flat(None).numel() == flat([]).numel() == 0


def test_what_chance_explains_is_not_a_difference() -> None:
    assert Observed(1, [], [], spread=0.8).is_by_chance(0.7)
    assert not Observed(1, [], [], spread=0.8).is_by_chance(0.01)
    assert not Observed(1, [], [], spread=0.0).is_by_chance(0.7)


def test_drawing_random_numbers_is_detected() -> None:
    import random

    for draw in (lambda: torch.rand(()), np.random.random, random.random):
        random_state.seed_all(3)
        first = float(draw())
        assert random_state.has_drawn(3)
        assert float(draw()) == first  # all generators were seeded again
    random_state.seed_all(3)
    torch.ones(3).sum()
    assert not random_state.has_drawn(3)
