"""Percentiles of latency samples, with the confidence that the sample can carry.

Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2 (confidence interval for a quantile);
Politis and Romano, A circular block-resampling procedure for stationary data, 1992 (the median's standard error). The
counts in `MLPERF_COUNTS` are those of MLPerf Inference's rules for a tail latency at 95 % confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist

_FEWEST_FOR_ERROR = 6
MLPERF_COUNTS = {90: 46, 95: 93, 99: 473}


def percentile(samples: Sequence[float], rank: float) -> float:
    """Return a percentile, interpolated linearly between the closest ranks (as numpy does by default).

    Args:
        samples: numbers in any order and unit; at least one.
        rank: 0 to 100.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("a percentile needs at least one sample")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * rank / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def interval(samples: Sequence[float], rank: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return a percentile's confidence interval between two order statistics; no distribution is assumed.

    With B the cumulative binomial of n trials at probability rank/100, the l-th and u-th smallest samples enclose the
    percentile with probability B(u - 1) - B(l - 1).

    Returns:
        The interval, in the samples' unit; None when even the smallest and the largest sample do not reach the
        confidence.
    """
    n = len(samples)
    if not carries(n, rank, confidence):
        return None
    cumulative = _binomial_cumulative(n, rank / 100)
    tail = (1 - confidence) / 2
    low = max((i for i in range(1, n + 1) if cumulative[i - 1] <= tail), default=1)
    high = min((i for i in range(1, n + 1) if cumulative[i - 1] >= 1 - tail), default=n)
    if cumulative[high - 1] - cumulative[low - 1] < confidence:  # one tail has no order statistic: take all there is
        low, high = 1, n
    ordered = sorted(samples)
    return ordered[low - 1], ordered[high - 1]


def carries(count: int, rank: float, confidence: float = 0.95) -> bool:
    """Return whether so many samples can give a percentile a confidence interval at all (p50 from 6, p90 from 29)."""
    p = rank / 100
    return count > 0 and 1 - p**count - (1 - p) ** count >= confidence


def median_error(samples: Sequence[float], rounds: int = 400, seed: int = 0) -> float | None:
    """Return the standard error of the median, by a circular block bootstrap.

    Neighbouring calls are alike (caches, clock speed, other programs), so blocks of them are drawn rather than single
    ones: as if they were independent, the error would come out too small.

    Args:
        samples: numbers in the order in which they were measured.
        rounds: how often to draw.
        seed: of the drawing, so that the same samples give the same error.

    Returns:
        The error in the samples' unit; None for less than six samples.
    """
    import numpy as np

    n = len(samples)
    if n < _FEWEST_FOR_ERROR:
        return None
    block = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, n, (rounds, math.ceil(n / block), 1))
    drawn = ((starts + np.arange(block)) % n).reshape(rounds, -1)[:, :n]
    return float(np.median(np.asarray(samples)[drawn], axis=1).std(ddof=1))


def ratio_interval(
    value: float, error: float, base: float, base_error: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the confidence interval of value / base, from their standard errors.

    The logarithm of the ratio is taken as normal (delta method). Where the interval holds 1, the two can't be told
    apart.

    Args:
        value: a positive estimate.
        error: its standard error.
        base: the positive estimate that it is divided by.
        base_error: its standard error.
        confidence: of the interval.
    """
    width = NormalDist().inv_cdf(0.5 + confidence / 2) * math.hypot(error / value, base_error / base)
    widest = 700.0  # of what a float's exponential can say
    return value / base * math.exp(-min(width, widest)), value / base * math.exp(min(width, widest))


def difference_interval(
    value: float, ends: tuple[float, float], base: float, base_ends: tuple[float, float]
) -> tuple[float, float]:
    """Return the confidence interval of value - base, from the intervals of both, taken as independent.

    Of two models on the same samples it comes out too wide rather than too narrow: what is hard for one is mostly hard
    for the other.

    Source: Zou and Donner, Construction of confidence limits about effect measures, 2008 (MOVER).
    """
    below = math.hypot(value - ends[0], base_ends[1] - base)
    above = math.hypot(ends[1] - value, base - base_ends[0])
    return value - base - below, value - base + above


def _binomial_cumulative(n: int, p: float) -> list[float]:
    """Return P(X <= k) for k = 0 .. n, with 0 < p < 1."""
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    )
    return list(accumulate(math.exp(log) for log in logs))
