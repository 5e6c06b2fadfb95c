"""Percentiles of latency samples and means over launches, with the confidence that the sample can carry.

A launch is one fresh process that times calls. Launches of one program differ by more than the calls within one do, by
where memory came to lie and by the clock. So what is said of a latency rests on the spread between launches.

Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2 (confidence interval for a quantile);
Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013 (repeat at the highest level that varies); Welch, The
generalization of Student's problem, 1947 (two groups of launches); Mickey and Brown, Bounds on the distribution
functions of the Behrens-Fisher statistic, 1966 (the degrees of freedom of these). The counts in `MLPERF_COUNTS` are the
least with which MLPerf Inference's early stopping, at 99 % confidence, gives an estimate of a tail latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, stdev

from mlflow_compress.budget import FEWEST_LAUNCHES

MLPERF_COUNTS = {90: 64, 95: 130, 99: 662}
_WIDEST = 700.0  # of a logarithm that a float's exponential can say


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


@dataclass(frozen=True)
class LogError:
    """How far the logarithm of an estimate may be from the truth.

    Attributes:
        error: its standard error.
        degrees: the degrees of freedom behind that error; infinite where it is known as such.
    """

    error: float
    degrees: float

    def half_width(self, confidence: float = 0.95) -> float:
        """Return half the confidence interval of the logarithm: the estimate times exp(-w) and exp(w) are its ends."""
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees, 0.5 + confidence / 2)) * self.error

    def interval(self, estimate: float, confidence: float = 0.95) -> tuple[float, float]:
        """Return the confidence interval of a positive estimate."""
        width = min(self.half_width(confidence), _WIDEST)
        return estimate * math.exp(-width), estimate * math.exp(width)

    def p_value(self, estimate: float) -> float:
        """Return how probable an estimate at least so far from 1 is where the truth is 1 (two-sided)."""
        from scipy.special import stdtr

        if self.error == 0:
            return float(estimate == 1)
        return 2 * float(stdtr(self.degrees, -abs(math.log(estimate)) / self.error))


def launch_mean(medians: Sequence[float]) -> float:
    """Return the geometric mean of what the launches found, each one number above 0."""
    return math.exp(fmean(math.log(median) for median in medians))


def launch_spread(medians: Sequence[float]) -> float | None:
    """Return the sample standard deviation of the logarithms of what the launches found; None of fewer than two."""
    return stdev(math.log(median) for median in medians) if len(medians) > 1 else None


def error_of_launches(spread: float, launches: int) -> LogError:
    """Return the error of the mean over launches, or over pairs of launches, as Student's t has it.

    Args:
        spread: the sample standard deviation of their logarithms.
        launches: how many there are; at least two.
    """
    return LogError(spread / math.sqrt(launches), launches - 1)


def launch_interval(medians: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the confidence interval of the mean over launches (or of a ratio's mean over pairs of launches).

    The logarithms are taken as normal: Student's t with one degree of freedom less than there are launches.

    Returns:
        The interval, in the unit of what is given; None for fewer than three launches.
    """
    spread = launch_spread(medians)
    if spread is None or len(medians) < FEWEST_LAUNCHES:
        return None
    return error_of_launches(spread, len(medians)).interval(launch_mean(medians), confidence)


def ratio_error(own: LogError, base: LogError) -> LogError:
    """Return the error of a ratio of two means over launches, which may spread differently.

    Welch's t with the fewer degrees of freedom of the two that spread at all: whatever the spreads, equal models are
    told apart no more often than the level says. Satterthwaite's estimated degrees do not hold that of three launches
    against a calmer original: 10 to 20 % of tables with twenty equal rows would claim something.

    Args:
        own: the error of the first.
        base: the error of that by which it is divided.
    """
    degrees = [each.degrees for each in (own, base) if each.error > 0]
    return LogError(math.hypot(own.error, base.error), min(degrees, default=math.inf))


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
