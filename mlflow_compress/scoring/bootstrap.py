"""Scores of a model: each metric with its confidence interval, and the difference of two models on the same samples.

Bootstrap: samples are drawn with replacement, as many as there are, and the metric is computed from their statistics. A
sample is drawn as a whole, so errors within an utterance may depend on each other. The ends are bias-corrected
percentiles, since resamples miss rare classes, which lowers macro averages; they are wider for few samples. If few
samples changed, the bootstrap alone would find differences too often: so the interval of a difference reaches at least
as far towards 0 as a randomisation test that swaps the answers (McNemar's test for an accuracy).

Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, sections 13.3 and 14.3 (without acceleration);
Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance evaluation, 2004; Koehn, Statistical
significance tests for machine translation evaluation, 2004 (two systems on the same drawn samples); Hesterberg, What
teachers should know about the bootstrap, 2015, section 5.3 (expanded percentiles); Noreen, Computer-intensive methods
for testing hypotheses, 1989 (approximate randomization).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

from mlflow_compress.errors import named_line, one_line
from mlflow_compress.networks.class_scores import taken
from mlflow_compress.records import MetricFacts
from mlflow_compress.scoring.drawing import Progress, drawn_sums, silent, swapped_sums
from mlflow_compress.scoring.pools import Pool
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import AdditiveMetric, Metric, PooledMetric, no_number

FEWEST_SAMPLES = 10  # minimum for an interval
_CONFIDENCE = 0.95
_ROUNDED = 1e-9
_UNDEFINED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # what metrics raise


@dataclass(frozen=True)
class Score:
    """The value of one metric.

    Attributes:
        value: the value over all samples.
        low, high: its 95 % interval. None if there are no statistics of single samples, if there are fewer than ten
            samples, or if the bootstrap is not informative: all samples are alike, or the resamples are far off.
        protocol: description of the number, on one line.
        facts: facts about the metric's numbers.
        statistics: statistics for pairing; None if the metric takes only all samples at once.
        kept_as: the name under which the statistics are stored (see `kept_as`).
    """

    value: float
    low: float | None
    high: float | None
    protocol: str
    facts: MetricFacts
    statistics: Statistics | None
    kept_as: str


@dataclass(frozen=True)
class Scores:
    """The values of all metrics.

    Attributes:
        samples: the number of samples.
        by_name: the values by the metric's name.
        undefined: why other metrics have no value, by name.
    """

    samples: int
    by_name: Mapping[str, Score]
    undefined: Mapping[str, str] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Return the numbers by their name on the tracking server: `quality/wer`, `quality/wer_low` and so on."""
        numbers = {"quality/samples": float(self.samples)}
        for name, score in self.by_name.items():
            values = {"": score.value, "_low": score.low, "_high": score.high}
            numbers |= {f"quality/{name}{end}": value for end, value in values.items() if value is not None}
        return numbers

    def protocols(self) -> dict[str, str]:
        """Return each metric's protocol, by name."""
        return {name: score.protocol for name, score in self.by_name.items()}

    def facts(self) -> dict[str, MetricFacts]:
        """Return each metric's facts about its numbers, by name."""
        return {name: score.facts for name, score in self.by_name.items()}

    def statistics(self) -> dict[str, Statistics]:
        """Return the statistics of the metrics that have them, by name or pool (see `kept_as`)."""
        return {score.kept_as: score.statistics for score in self.by_name.values() if score.statistics is not None}


def score(
    metrics: Mapping[str, Metric],
    references: Sequence[Any],
    predictions: Sequence[Any],
    seed: int,
    progress: Progress = silent,
) -> Scores:
    """Score predictions. A metric that has no value for them does not cost the others theirs.

    Args:
        metrics: metrics by the names of their numbers.
        references: one reference for each sample.
        predictions: one prediction for each sample.
        seed: seed for the bootstrap; all metrics use the same resamples.
        progress: called with the number of resamples done, their total, and the estimated seconds left.

    Raises:
        ValueError: there are no samples, the numbers of predictions and references differ, or no metric has a value.
    """
    if not len(references) or len(references) != len(predictions):
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
    pools: dict[str, Pool] = {}
    values: dict[str, Score] = {}
    undefined: dict[str, str] = {}
    last_error: Exception | None = None
    for name, metric in metrics.items():
        try:
            values[name] = _value(name, metric, references, taken(metric.takes, predictions), pools)
        except _UNDEFINED as error:
            undefined[name] = one_line(error) if type(error) is ValueError else named_line(error)
            last_error = error
    if not values:
        reasons = "; ".join(f"{name} has no value: {reason}" for name, reason in undefined.items())
        raise ValueError(reasons) from last_error
    is_bounded = len(references) >= FEWEST_SAMPLES
    tables = {
        name: score.statistics.values
        for name, score in values.items()
        if score.statistics is not None and isinstance(metrics[name], AdditiveMetric)
    }
    sums: dict[str, Any] = {}
    if tables and is_bounded:
        sums = dict(zip(tables, drawn_sums(list(tables.values()), seed, progress), strict=True))
    summaries = {name: pool.drawn(seed, progress) for name, pool in pools.items() if is_bounded}
    return Scores(
        len(references),
        {
            name: _bounded(value, metrics[name], sums.get(name), summaries, len(references))
            for name, value in values.items()
        },
        undefined,
    )


def kept_as(name: str, metric: Metric) -> str:
    """Return the name under which a metric's statistics are stored: its own, or that of its shared pool."""
    return metric.pool if isinstance(metric, PooledMetric) else name


def paired(
    own: Statistics, original: Statistics, metric: AdditiveMetric | PooledMetric, seed: int
) -> tuple[float, float | None, float | None]:
    """Return the difference of a model's score from the original's on the same samples, with its 95 % interval.

    Both models use the same resamples, so samples that are hard for both do not widen the interval. If the interval
    contains 0, the difference is not significant.

    Args:
        own: statistics of the model for this metric.
        original: statistics of the original, for the same samples in the same order.
        metric: the metric of both, with the same options.
        seed: seed for the bootstrap.

    Returns:
        The difference, and the ends of its interval, which are None for fewer than ten samples, or if the bootstrap is
        not informative.

    Raises:
        ValueError: the statistics belong to different samples or different metrics.
    """
    import numpy as np

    if isinstance(metric, PooledMetric):
        return _paired_pools(own, original, metric, seed)
    aligned = _aligned(own, original)

    def difference(sums: Any) -> float:
        return float(metric.reduce(sums[0])) - float(metric.reduce(sums[1]))

    value = difference(aligned.sum(axis=1))
    if aligned.shape[1] < FEWEST_SAMPLES:
        return value, None, None
    resampled = np.array([difference(sums) for sums in zip(*drawn_sums(list(aligned), seed), strict=True)])
    ends = _ends(resampled, value, aligned.shape[1])
    if ends is None:
        return value, None, None
    return value, *_reaching(ends, value, [difference(sums) for sums in swapped_sums(aligned[0], aligned[1], seed)])


def _paired_pools(
    own: Statistics, original: Statistics, metric: PooledMetric, seed: int
) -> tuple[float, float | None, float | None]:
    """Pair two runs by summaries of the same resamples (see `paired`)."""
    import numpy as np

    own_pool, original_pool = Pool(metric, own), Pool(metric, original)
    samples = own_pool.samples
    if samples != original_pool.samples:
        raise ValueError(f"{samples} samples can't be paired with {original_pool.samples}")
    value = metric.pick(own_pool.whole()) - metric.pick(original_pool.whole())
    if samples < FEWEST_SAMPLES:
        return value, None, None
    pools = (own_pool, original_pool)
    own_values, original_values = (np.array([metric.pick(summary) for summary in pool.drawn(seed)]) for pool in pools)
    return value, *(_ends(own_values - original_values, value, samples) or (None, None))


def _value(
    name: str, metric: Metric, references: Sequence[Any], predictions: Sequence[Any], pools: dict[str, Pool]
) -> Score:
    """Return the value of a metric, without an interval; add its pool if it is the first of it."""
    import numpy as np

    statistics = None
    if isinstance(metric, PooledMetric):
        if metric.pool not in pools:
            pools[metric.pool] = Pool.of(metric, references, predictions)
        pool = pools[metric.pool]
        value, statistics = metric.pick(pool.whole()), pool.statistics
    elif isinstance(metric, AdditiveMetric):
        values = np.asarray(metric.statistics(references, predictions), dtype=np.float64)
        if len(invalid := np.flatnonzero(~np.isfinite(values).all(axis=1))):
            raise ValueError(f"sample {invalid[0]} (and {len(invalid) - 1} more) has no finite value")
        value = metric.reduce(values.sum(axis=0))
        statistics = Statistics(values, metric.columns(references, predictions))
    else:
        value = metric.compute(references, predictions)
    if not np.isfinite(value):
        raise ValueError(no_number(metric))
    return Score(float(value), None, None, metric.protocol, metric.facts, statistics, kept_as(name, metric))


def _bounded(score: Score, metric: Metric, sums: Any, summaries: Mapping[str, Sequence[Any]], samples: int) -> Score:
    """Return a score with its interval, from resamples: their sums [resamples, statistics], or their summaries."""
    import numpy as np

    if isinstance(metric, AdditiveMetric) and sums is not None:
        resampled = [metric.reduce(row) for row in sums]
    elif isinstance(metric, PooledMetric) and metric.pool in summaries:
        resampled = [metric.pick(summary) for summary in summaries[metric.pool]]
    else:
        return score
    ends = _ends(np.array(resampled), score.value, samples)
    return score if ends is None or ends[0] >= ends[1] else replace(score, low=ends[0], high=ends[1])


def _ends(resampled: Any, value: float, samples: int) -> tuple[float, float] | None:
    """Return the interval of a value from those of the resamples, corrected for the bias of their median.

    None if one of them is not a number, or if they are so biased that the value would lie outside.
    """
    import numpy as np

    share_below = float(np.mean(resampled < value) + np.mean(resampled == value) / 2)
    if not np.isfinite(resampled).all() or not 0 < share_below < 1:
        return None
    normal = NormalDist()
    shift, width = 2 * normal.inv_cdf(share_below), _width(samples)
    low, high = np.percentile(resampled, [100 * normal.cdf(shift - width), 100 * normal.cdf(shift + width)])
    return (float(low), float(high)) if low <= value <= high else None


def _width(samples: int) -> float:
    """Return half the width of an interval in standard errors: 1.96 for many samples.

    With few samples it is larger: resamples vary less than new samples would, and their variance is uncertain.
    """
    from scipy.special import stdtrit

    return math.sqrt(samples / (samples - 1)) * float(stdtrit(samples - 1, 0.5 + _CONFIDENCE / 2))


def _reaching(ends: tuple[float, float], value: float, swapped: Sequence[float]) -> tuple[float, float]:
    """Extend the interval of a difference towards 0 according to the randomisation test.

    Args:
        ends: the interval.
        value: the difference.
        swapped: the differences after swapping answers at random.
    """
    as_far = sum(abs(difference) >= abs(value) * (1 - _ROUNDED) for difference in swapped)
    if value == 0 or not as_far:
        return ends
    normal, p_value = NormalDist(), (as_far + 1) / (len(swapped) + 1)
    reach = abs(value)  # without significance, the interval contains 0
    if p_value < 1 - _CONFIDENCE:
        reach *= normal.inv_cdf(0.5 + _CONFIDENCE / 2) / normal.inv_cdf(1 - p_value / 2)
    low, high = ends
    return (min(low, value - reach), high) if value > 0 else (low, max(high, value + reach))


def _aligned(own: Statistics, original: Statistics) -> Any:
    """Stack the statistics of two runs: [2, samples, statistics]; columns that one run does not have are 0."""
    import numpy as np

    if len(own.values) != len(original.values):
        raise ValueError(f"{len(own.values)} samples can't be paired with {len(original.values)}")
    if own.columns == original.columns and own.values.shape == original.values.shape:
        return np.stack([own.values, original.values])
    if not (own.columns and original.columns):
        raise ValueError("these statistics belong to different metrics")
    position = {name: index for index, name in enumerate(dict.fromkeys([*own.columns, *original.columns]))}
    values = np.zeros((2, len(own.values), len(position)))
    for side, statistics in zip(values, (own, original), strict=True):
        side[:, [position[name] for name in statistics.columns]] = statistics.values
    return values
