"""Percentiles of latency samples and means over launches, with the confidence that the samples support.

A launch is one fresh process that times calls. Launches of one program differ more than the calls within one launch,
because of memory placement and the clock. So statements about a latency are based on the spread between launches.

Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2 (confidence interval for a quantile);
Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013 (repeat at the highest level that varies); Welch, The
generalization of Student's problem, 1947 (two groups of launches); Mickey and Brown, Bounds on the distribution
functions of the Behrens-Fisher statistic, 1966 (the degrees of freedom of these). The counts in `MLPERF_COUNTS` are the
smallest for which MLPerf Inference's early stopping, at 99 % confidence, gives an estimate of a tail latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, stdev

from mlflow_compress.budget import FEWEST_LAUNCHES

MLPERF_COUNTS = {90: 64, 95: 130, 99: 662}
_WIDEST = 700.0  # of a logarithm, so that its exponential is a finite float


def percentile(samples: Sequence[float], rank: float) -> float:
    """Return a percentile, interpolated linearly between the closest ranks (as numpy does by default).

    Args:
        samples: Numbers in any order and unit; at least one.
        rank: 0 to 100.

    Raises:
        ValueError: There are no samples.
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
        The interval, in the samples' unit; None if even the smallest and the largest sample do not reach the
        confidence.
    """
    n = len(samples)
    if not carries(n, rank, confidence):
        return None
    cumulative = _binomial_cumulative(n, rank / 100)
    tail = (1 - confidence) / 2
    low = max((i for i in range(1, n + 1) if cumulative[i - 1] <= tail), default=1)
    high = min((i for i in range(1, n + 1) if cumulative[i - 1] >= 1 - tail), default=n)
    if cumulative[high - 1] - cumulative[low - 1] < confidence:  # one tail has no order statistic: use all samples
        low, high = 1, n
    ordered = sorted(samples)
    return ordered[low - 1], ordered[high - 1]


def carries(count: int, rank: float, confidence: float = 0.95) -> bool:
    """Return whether `count` samples give a percentile a confidence interval (p50 from 6 samples, p90 from 29)."""
    p = rank / 100
    return count > 0 and 1 - p**count - (1 - p) ** count >= confidence


@dataclass(frozen=True)
class LogError:
    """The error of the logarithm of an estimate.

    Attributes:
        error: Its standard error.
        degrees: Degrees of freedom of the error; infinite if the error is known exactly.
    """

    error: float
    degrees: float

    def half_width(self, confidence: float = 0.95) -> float:
        """Return half the width w of the logarithm's interval: the ends are the estimate times exp(-w) and exp(w)."""
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees, 0.5 + confidence / 2)) * self.error

    def interval(self, estimate: float, confidence: float = 0.95) -> tuple[float, float]:
        """Return the confidence interval of a positive estimate."""
        width = min(self.half_width(confidence), _WIDEST)
        return estimate * math.exp(-width), estimate * math.exp(width)

    def p_value(self, estimate: float) -> float:
        """Return the two-sided probability of an estimate at least so far from 1 if the true value is 1."""
        from scipy.special import stdtr

        if self.error == 0:
            return float(estimate == 1)
        return 2 * float(stdtr(self.degrees, -abs(math.log(estimate)) / self.error))


def launch_mean(medians: Sequence[float]) -> float:
    """Return the geometric mean over launches, one positive number each."""
    return math.exp(fmean(math.log(median) for median in medians))


def launch_spread(medians: Sequence[float]) -> float | None:
    """Return the sample standard deviation of the logarithms over launches; None for fewer than two launches."""
    return stdev(math.log(median) for median in medians) if len(medians) > 1 else None


def error_of_launches(spread: float, launches: int) -> LogError:
    """Return the error of the mean over launches, or over pairs of launches, for Student's t.

    Args:
        spread: Sample standard deviation of their logarithms.
        launches: Number of launches; at least two.
    """
    return LogError(spread / math.sqrt(launches), launches - 1)


def launch_interval(medians: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the confidence interval of the mean over launches (or of a ratio's mean over pairs of launches).

    The logarithms are assumed to be normal: Student's t with one degree of freedom less than launches.

    Returns:
        The interval, in the unit of the medians; None for fewer than three launches.
    """
    spread = launch_spread(medians)
    if spread is None or len(medians) < FEWEST_LAUNCHES:
        return None
    return error_of_launches(spread, len(medians)).interval(launch_mean(medians), confidence)


def ratio_error(own: LogError, base: LogError) -> LogError:
    """Return the error of a ratio of two means over launches, with possibly different spreads.

    This is Welch's t with the smaller degrees of freedom of the two with a nonzero error: for all spreads, equal models
    are reported as different no more often than the level allows. Satterthwaite's estimated degrees violate this for
    three launches against a less noisy original: 10 to 20 % of tables with twenty equal rows would claim a difference.

    Args:
        own: Error of the numerator.
        base: Error of the denominator.
    """
    degrees = [side.degrees for side in (own, base) if side.error > 0]
    return LogError(math.hypot(own.error, base.error), min(degrees, default=math.inf))


def difference_interval(
    value: float, ends: tuple[float, float], base: float, base_ends: tuple[float, float]
) -> tuple[float, float]:
    """Return the confidence interval of value - base, from the intervals of both, assumed to be independent.

    For two models on the same samples it is rather too wide than too narrow: samples that are hard for one are mostly
    hard for the other.

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
