"""Scores of a model: each metric with its confidence interval, and the difference of two models on the same samples.

Samples are drawn with replacement, as many as there are, and the metric is made of the drawn ones' statistics: a sample
is drawn whole, so errors within an utterance may depend on each other. The ends are bias-corrected percentiles, since a
drawn sample misses rare classes, and macro averages suffer; and they are further out where samples are few. Drawing
still tells two models apart too often where few samples changed: so the interval of a difference reaches at least as
far towards 0 as a test says that swaps their answers at random (for an accuracy that is McNemar's).

Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, sections 13.3 and 14.3 (without acceleration);
Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance evaluation, 2004; Koehn, Statistical
significance tests for machine translation evaluation, 2004 (two systems on the same drawn samples); Hesterberg, What
teachers should know about the bootstrap, 2015, section 5.3 (expanded percentiles); Noreen, Computer-intensive methods
for testing hypotheses, 1989 (approximate randomization).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from mlflow_compress.records import MetricFacts
from mlflow_compress.scoring.drawing import Progress, drawn_sums, silent, swapped_sums
from mlflow_compress.scoring.pools import Pool, pools_of
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import AdditiveMetric, Metric, PooledMetric, no_number

FEWEST_SAMPLES = 10  # for an interval
_CONFIDENCE = 0.95
_ROUNDED = 1e-9


@dataclass(frozen=True)
class Score:
    """The value of one metric.

    Attributes:
        value: over all samples.
        low, high: its 95 % interval. None where nothing is known of single samples, where there are fewer than ten, and
            where drawing from them tells nothing: all are alike, or the drawn ones score quite otherwise.
        protocol: what the number is, in a line.
        facts: what its metric says of such numbers.
        statistics: what to pair it by; None where the metric only takes all samples at once.
        kept_as: the name under which these are kept (see `kept_as`).
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
    """The values of all metrics, by name, over so many samples."""

    samples: int
    by_name: Mapping[str, Score]

    def numbers(self) -> dict[str, float]:
        """Return the numbers by their name on the tracking server: `quality/wer`, `quality/wer_low` and so on."""
        numbers = {"quality/samples": float(self.samples)}
        for name, score in self.by_name.items():
            found = {"": score.value, "_low": score.low, "_high": score.high}
            numbers |= {f"quality/{name}{end}": value for end, value in found.items() if value is not None}
        return numbers

    def protocols(self) -> dict[str, str]:
        """Return each metric's protocol, by its name."""
        return {name: score.protocol for name, score in self.by_name.items()}

    def facts(self) -> dict[str, MetricFacts]:
        """Return what each metric says of its numbers, by its name."""
        return {name: score.facts for name, score in self.by_name.items()}

    def statistics(self) -> dict[str, Statistics]:
        """Return the statistics of the metrics that have them, by name or pool (see `kept_as`)."""
        return {each.kept_as: each.statistics for each in self.by_name.values() if each.statistics is not None}


def score(
    metrics: Mapping[str, Metric],
    references: Sequence[Any],
    predictions: Sequence[Any],
    seed: int,
    progress: Progress = silent,
) -> Scores:
    """Score predictions.

    Args:
        metrics: by the names that their numbers shall have.
        references: one for each sample.
        predictions: one for each sample.
        seed: of the drawing; all metrics are made of the same drawn samples.
        progress: told how often it was drawn, how often it will be, and about how many seconds that takes.

    Raises:
        ValueError: there are no samples, not as many predictions as references, or they make no number.
    """
    if not len(references) or len(references) != len(predictions):
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
    pools = pools_of(metrics, references, predictions)
    values = {name: _value(name, metric, references, predictions, pools) for name, metric in metrics.items()}
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
            name: _bounded(each, metrics[name], sums.get(name), summaries, len(references))
            for name, each in values.items()
        },
    )


def kept_as(name: str, metric: Metric) -> str:
    """Return the name under which a metric's statistics are kept: its own, or that of the pool that it shares."""
    return metric.pool if isinstance(metric, PooledMetric) else name


def paired(
    own: Statistics, original: Statistics, metric: AdditiveMetric | PooledMetric, seed: int
) -> tuple[float, float | None, float | None]:
    """Return how much more a model scores than the original on the same samples, with the 95 % interval of that.

    Both are drawn together, so what is hard for both does not widen the interval. Where it holds 0, the two can't be
    told apart.

    Args:
        own: statistics of the model, by this metric.
        original: those of the original, of the same samples in the same order.
        metric: what both were scored by, with the same options.
        seed: of the drawing.

    Returns:
        The difference, and the ends of its interval, which are None for fewer than ten samples, and where drawing
        from them tells nothing.

    Raises:
        ValueError: the statistics are not of the same samples or not of the same metric.
    """
    import numpy as np

    if isinstance(metric, PooledMetric):
        return _paired_pools(own, original, metric, seed)
    both = _aligned(own, original)

    def difference(sums: Any) -> float:
        return float(metric.reduce(sums[0])) - float(metric.reduce(sums[1]))

    value = difference(both.sum(axis=1))
    if both.shape[1] < FEWEST_SAMPLES:
        return value, None, None
    drawn = np.array([difference(sums) for sums in zip(*drawn_sums(list(both), seed), strict=True)])
    ends = _ends(drawn, value, both.shape[1])
    if ends is None:
        return value, None, None
    return value, *_reaching(ends, value, [difference(sums) for sums in swapped_sums(both[0], both[1], seed)])


def _paired_pools(
    own: Statistics, original: Statistics, metric: PooledMetric, seed: int
) -> tuple[float, float | None, float | None]:
    """Pair two runs by what is made of the same drawn samples (see `paired`)."""
    import numpy as np

    one, other = (Pool(metric, each) for each in (own, original))
    if one.samples != other.samples:
        raise ValueError(f"{one.samples} samples can't be paired with {other.samples}")
    value = metric.pick(one.whole()) - metric.pick(other.whole())
    if one.samples < FEWEST_SAMPLES:
        return value, None, None
    drawn, of_original = (np.array([metric.pick(summary) for summary in pool.drawn(seed)]) for pool in (one, other))
    return value, *(_ends(drawn - of_original, value, one.samples) or (None, None))


def _value(
    name: str, metric: Metric, references: Sequence[Any], predictions: Sequence[Any], pools: Mapping[str, Pool]
) -> Score:
    """Return the value of a metric, without an interval."""
    import numpy as np

    statistics = None
    if isinstance(metric, PooledMetric):
        pool = pools[metric.pool]
        value, statistics = metric.pick(pool.whole()), pool.statistics
    elif isinstance(metric, AdditiveMetric):
        values = np.asarray(metric.statistics(references, predictions), dtype=np.float64)
        if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=1))):
            raise ValueError(f"{name}: sample {wrong[0]} (and {len(wrong) - 1} more) makes no finite number")
        value = metric.reduce(values.sum(axis=0))
        statistics = Statistics(values, metric.columns(references, predictions))
    else:
        value = metric.compute(references, predictions)
    if not np.isfinite(value):
        raise ValueError(no_number(name, metric))
    return Score(float(value), None, None, metric.protocol, metric.facts, statistics, kept_as(name, metric))


def _bounded(score: Score, metric: Metric, sums: Any, summaries: Mapping[str, Sequence[Any]], samples: int) -> Score:
    """Return a score with its interval, from drawn samples: their sums [resamples, statistics], or the summaries."""
    import numpy as np

    if isinstance(metric, AdditiveMetric) and sums is not None:
        drawn = [metric.reduce(each) for each in sums]
    elif isinstance(metric, PooledMetric) and metric.pool in summaries:
        drawn = [metric.pick(each) for each in summaries[metric.pool]]
    else:
        return score
    ends = _ends(np.array(drawn), score.value, samples)
    return score if ends is None or ends[0] >= ends[1] else replace(score, low=ends[0], high=ends[1])


def _ends(drawn: Any, value: float, samples: int) -> tuple[float, float] | None:
    """Return the interval of a value from the drawn ones, corrected for how far their median is off.

    None where one of them is no number, and where they are so far off that the value would lie outside.
    """
    import numpy as np

    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    if not np.isfinite(drawn).all() or not 0 < below < 1:
        return None
    normal = NormalDist()
    shift, width = 2 * normal.inv_cdf(below), _width(samples)
    low, high = np.percentile(drawn, [100 * normal.cdf(shift - width), 100 * normal.cdf(shift + width)])
    return (float(low), float(high)) if low <= value <= high else None


def _width(samples: int) -> float:
    """Return how many standard errors of drawn samples an interval is wide on each side: 1.96 where there are many.

    Of few, drawn samples vary less than others would, and how much they vary is itself not known well.
    """
    from scipy.special import stdtrit

    return math.sqrt(samples / (samples - 1)) * float(stdtrit(samples - 1, 0.5 + _CONFIDENCE / 2))


def _reaching(ends: tuple[float, float], value: float, swapped: Sequence[float]) -> tuple[float, float]:
    """Return an interval of a difference that reaches towards 0 as far as the test says whose differences are given.

    Args:
        ends: of the interval.
        value: the difference.
        swapped: what it would be, were the answers swapped at random.
    """
    as_far = sum(abs(each) >= abs(value) * (1 - _ROUNDED) for each in swapped)
    if value == 0 or not as_far:
        return ends
    normal, p_value = NormalDist(), (as_far + 1) / (len(swapped) + 1)
    reach = abs(value)  # where they are not told apart, the interval holds 0
    if p_value < 1 - _CONFIDENCE:
        reach *= normal.inv_cdf(0.5 + _CONFIDENCE / 2) / normal.inv_cdf(1 - p_value / 2)
    low, high = ends
    return (min(low, value - reach), high) if value > 0 else (low, max(high, value + reach))


def _aligned(own: Statistics, original: Statistics) -> Any:
    """Stack the statistics of two runs: [2, samples, statistics]; one has 0 for what only the other has."""
    import numpy as np

    if len(own.values) != len(original.values):
        raise ValueError(f"{len(own.values)} samples can't be paired with {len(original.values)}")
    if own.columns == original.columns and own.values.shape == original.values.shape:
        return np.stack([own.values, original.values])
    if not (own.columns and original.columns):
        raise ValueError("these statistics are not of the same metric")
    place = {name: index for index, name in enumerate(dict.fromkeys([*own.columns, *original.columns]))}
    both = np.zeros((2, len(own.values), len(place)))
    for side, each in zip(both, (own, original), strict=True):
        side[:, [place[name] for name in each.columns]] = each.values
    return both
