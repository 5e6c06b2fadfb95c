"""Splitting a budget among launches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.budget import Budget


@pytest.mark.parametrize(
    ("restoring_s", "call_s", "budget", "launches"),
    [
        (3.0, 0.001, Budget(), 5),  # 12 s of restoring; 30 s are allowed
        (8.0, 0.001, Budget(), 4),
        (12.0, 0.001, Budget(), 3),
        (16.0, 0.001, Budget(), 1),  # never two: they give no interval
        (16.0, 2.0, Budget(), 4),  # timing takes a minute, so restoring may take as long
        (25.0, 30.0, Budget(), 5),  # six calls of 30 s take longer than `max_seconds`
        (100.0, 2.0, Budget(), 1),
        (0.0, 0.001, Budget(), 5),
        (3.0, 0.001, Budget(launches=4), 4),
        (3.0, 0.001, Budget(launches=2), 1),
        (3.0, 0.001, Budget(launches=1), 1),
        (1.1, 0.001, Budget(min_seconds=0.2), 1),  # a tiny budget stays tiny
        (1.0, 0.0001, Budget(min_seconds=0, max_seconds=2), 1),
        (1.0, 0.0001, Budget(min_seconds=1e308, max_seconds=1e308), 5),  # ten times as long is infinite
    ],
)
def test_launches_that_fit(restoring_s: float, call_s: float, budget: Budget, launches: int) -> None:
    assert budget.launches_that_fit(restoring_s, call_s) == launches


@given(st.floats(0, 1e4), st.floats(0, 1e3), st.floats(0, 100), st.floats(0, 1e3), st.integers(1, 40))
def test_restoring_takes_no_longer_than_it_may(
    restoring_s: float, call_s: float, min_seconds: float, max_seconds: float, launches: int
) -> None:
    budget = Budget(min_seconds=min_seconds, max_seconds=max_seconds, launches=launches)
    planned = budget.launches_that_fit(restoring_s, call_s)
    timing_s = max(max_seconds, budget.fewest_iterations * call_s)
    assert (planned - 1) * restoring_s <= max(10 * min_seconds, timing_s) * (1 + 1e-9)
    assert planned == 1 or 3 <= planned <= launches


def test_shares_make_the_whole() -> None:
    budget = Budget(min_iterations=50, min_seconds=3, max_seconds=60, fewest_iterations=6, energy_seconds=5)
    share = budget.share(5)
    assert (share.min_iterations, share.min_seconds, share.max_seconds) == (10, 0.6, 12)
    assert share.fewest_iterations == 3  # for a median
    assert share.energy_seconds == 5  # one launch measures it
    assert budget.share(1) == budget
    assert Budget(min_iterations=50).share(3).min_iterations == 17  # no fewer than requested


@pytest.mark.parametrize(("min_seconds", "least"), [(3.0, 0.5), (30.0, 0.5), (0.6, 0.1), (0.0, 0.0)])
def test_a_warm_up_takes_its_time_but_of_a_tiny_budget(min_seconds: float, least: float) -> None:
    assert Budget(min_seconds=min_seconds).warmup_min_seconds == pytest.approx(least)
    assert Budget(min_seconds=3, warmup_max_seconds=0.2).warmup_min_seconds == 0.2
