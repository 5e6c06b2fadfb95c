from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.percentiles import (
    MLPERF_COUNTS,
    LogError,
    carries,
    difference_interval,
    error_of_launches,
    interval,
    launch_interval,
    launch_mean,
    launch_spread,
    percentile,
    ratio_error,
)

special = pytest.importorskip("scipy.special")  # scipy.stats takes seconds to import

samples_of = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(samples_of, st.floats(0, 100))
def test_a_percentile_is_numpys(samples: list[float], rank: float) -> None:
    assert percentile(samples, rank) == pytest.approx(float(np.percentile(samples, rank)), rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_order_does_not_matter(samples: list[float], rank: float) -> None:
    assert percentile(samples, rank) == percentile(sorted(samples, reverse=True), rank)


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)
    assert interval([], 50) is None


@pytest.mark.parametrize(("rank", "least"), [(50, 6), (90, 29), (95, 59), (99, 299)])
def test_how_many_samples_carry_a_percentile(rank: int, least: int) -> None:
    assert not carries(least - 1, rank)
    assert carries(least, rank)
    assert interval(range(least - 1), rank) is None
    assert interval(range(least), rank) is not None


@settings(max_examples=60, deadline=None)
@given(st.integers(6, 700), st.sampled_from([50, 90, 95, 99]), st.integers(0, 9))
def test_the_interval_covers_what_it_claims_and_holds_the_percentile(n: int, rank: int, seed: int) -> None:
    order = [float(value) for value in range(1, n + 1)]  # the samples are their own ranks
    shuffled = random.Random(seed).sample(order, n)
    bounds = interval(shuffled, rank)
    if bounds is None:
        assert not carries(n, rank)
        return
    low, high = bounds
    assert low <= percentile(shuffled, rank) <= high

    def below(count: float) -> float:
        return float(special.bdtr(count, n, rank / 100))

    coverage = below(high - 1) - below(low - 1)
    assert coverage >= 0.95 - 1e-12
    if (low, high) != (1, n):  # and as narrow as possible: one rank less on either side would be too narrow
        assert below(low - 1) <= 0.025 + 1e-12 < below(low) + 2e-12
        assert below(high - 2) < 0.975 + 1e-12


def test_the_interval_of_the_median_of_ten_is_the_textbooks() -> None:
    assert interval(range(1, 11), 50) == (2, 9)


@pytest.mark.parametrize(("rank", "count"), MLPERF_COUNTS.items())
def test_mlperfs_counts_are_those_of_its_early_stopping(rank: int, count: int) -> None:
    """Return the smallest count for which at most one call is above the percentile in 1 % of samples, like loadgen."""
    assert {90: 64, 99: 662}[rank] == count if rank != 95 else count == 130
    slow = 1 - rank / 100
    assert special.bdtr(1, count, slow) <= 0.01 < special.bdtr(1, count - 1, slow)
    assert carries(count, rank)


def test_the_interval_covers_the_true_percentile_as_often_as_it_says() -> None:
    generator = random.Random(0)
    truth = float(-np.log(1 - 0.9))  # of the exponential distribution
    hits = 0
    for _ in range(400):
        bounds = interval([generator.expovariate(1) for _ in range(60)], 90)
        assert bounds
        hits += bounds[0] <= truth <= bounds[1]
    assert hits >= 0.93 * 400


positive = st.floats(1e-3, 1e4)


@given(st.lists(positive, min_size=3, max_size=8))
def test_the_interval_of_launches_is_students(medians: list[float]) -> None:
    logs = np.log(medians)
    bounds = launch_interval(medians)
    assert bounds is not None
    assert launch_mean(medians) == pytest.approx(float(np.exp(logs.mean())))
    width = special.stdtrit(len(medians) - 1, 0.975) * logs.std(ddof=1) / len(medians) ** 0.5
    assert np.log(bounds) == pytest.approx([logs.mean() - min(width, 700), logs.mean() + min(width, 700)], abs=1e-9)


def test_fewer_than_three_launches_have_no_interval() -> None:
    assert (launch_spread([5.0]), launch_interval([5.0]), launch_interval([5.0, 6.0])) == (None, None, None)
    assert launch_spread([5.0, 5.0]) == 0
    assert launch_interval([5.0, 5.0, 5.0]) == pytest.approx((5, 5))


spreads, counts = st.floats(1e-3, 1), st.integers(2, 8)


@given(spreads, counts, spreads, counts, st.floats(0.5, 2))
def test_a_ratio_of_launches_is_welchs_of_the_fewer_degrees(
    own: float, n: int, base: float, m: int, ratio: float
) -> None:
    error = ratio_error(error_of_launches(own, n), error_of_launches(base, m))
    parts = own**2 / n, base**2 / m
    statistic = abs(np.log(ratio)) / sum(parts) ** 0.5
    welch = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))  # Satterthwaite's degrees
    assert error.p_value(ratio) == pytest.approx(2 * special.stdtr(min(n, m) - 1, -statistic), rel=1e-6)
    assert error.p_value(ratio) >= 2 * special.stdtr(welch, -statistic) * (1 - 1e-6), "no fewer degrees"
    low, high = error.interval(ratio, 0.9)
    assert high / ratio == pytest.approx(ratio / low)
    assert np.log(high / ratio) == pytest.approx(error.half_width(0.9))
    assert (low <= 1 <= high) == (error.p_value(ratio) >= 0.1)  # the interval and the test say the same


def test_launches_that_do_not_spread_leave_no_doubt() -> None:
    error = ratio_error(error_of_launches(0.0, 3), error_of_launches(0.0, 5))
    assert error.half_width() == 0
    assert (error.p_value(1.0), error.p_value(1.01)) == (1, 0)
    assert ratio_error(error_of_launches(0.0, 3), error_of_launches(0.2, 4)) == LogError(0.1, 3)
    assert error_of_launches(0.1, 4) == LogError(0.05, 3)
    assert LogError(1.0, float("inf")).half_width() == pytest.approx(1.959964)  # the normal distribution's


widths = st.floats(0, 1e3)


@given(st.floats(-1e3, 1e3), widths, widths, st.floats(-1e3, 1e3), widths, widths)
def test_an_interval_of_a_difference(a: float, below: float, above: float, b: float, under: float, over: float) -> None:
    own, base = (a - below, a + above), (b - under, b + over)
    low, high = difference_interval(a, own, b, base)
    assert low <= a - b <= high
    swapped = difference_interval(b, base, a, own)
    assert swapped == pytest.approx((-high, -low), abs=1e-6)
    if low > 0:  # disjoint intervals differ, and so may some that overlap
        assert own[0] - base[1] <= low + 1e-6


def test_an_interval_of_a_difference_covers_it() -> None:
    generator = np.random.default_rng(0)
    p, q, n, rounds = 0.8, 0.7, 200, 2000
    covered = 0
    for _ in range(rounds):
        ends = []
        for share in (p, q):
            observed = generator.binomial(n, share) / n
            width = 1.96 * (observed * (1 - observed) / n) ** 0.5
            ends.append((observed, (observed - width, observed + width)))
        low, high = difference_interval(*ends[0], *ends[1])
        covered += low <= p - q <= high
    assert 0.93 < covered / rounds < 0.97
