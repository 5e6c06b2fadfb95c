"""Percentiles of latency samples, with the confidence that the sample can carry.

Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2 (confidence interval for a quantile). The
counts in `MLPERF_COUNTS` are those of MLPerf Inference's rules for a tail latency at 95 % confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

MLPERF_COUNTS = {90: 46, 95: 93, 99: 473}


def percentile(samples: Sequence[float], rank: float) -> float:
    """Give a percentile, interpolated linearly between the closest ranks (as numpy does by default).

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
    """Give a percentile's confidence interval between two order statistics; no distribution is assumed.

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
    """Say whether so many samples can give a percentile a confidence interval at all (p50 from 6, p90 from 29)."""
    p = rank / 100
    return count > 0 and 1 - p**count - (1 - p) ** count >= confidence


def _binomial_cumulative(n: int, p: float) -> list[float]:
    """Give P(X <= k) for k = 0 .. n, with 0 < p < 1."""
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    )
    return list(accumulate(math.exp(log) for log in logs))
