"""Scores of a model: each metric with its confidence interval, and the difference of two models on the same samples.

Samples are drawn with replacement, as many as there are, and the metric is made of the drawn ones' statistics: a sample
is drawn whole, so errors within an utterance may depend on each other. The ends are bias-corrected percentiles, since a
drawn sample misses rare classes, and macro averages suffer.

Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, sections 13.3 and 14.3 (without acceleration);
Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance evaluation, 2004; Koehn, Statistical
significance tests for machine translation evaluation, 2004 (two systems on the same drawn samples).
"""

from __future__ import annotations

import math
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

from mlflow_compress.errors import named_line
from mlflow_compress.files import whole_file
from mlflow_compress.records import MetricFacts
from mlflow_compress.sockets import AdditiveMetric, Metric
from mlflow_compress.untrusted import Malformed, check_size

RESAMPLES = 1000
_CONFIDENCE = 0.95
_FEWEST = 10  # samples for an interval
_AT_ONCE = 2**22  # drawn samples in memory
_COLUMNS = ".columns"
MOST_PACKED_BYTES = 2**29  # of their file
_MOST_BYTES = 2**31  # of statistics in memory: those of a thousand classes on 50,000 samples take half of it
_ALIKE = 4  # rows to each kind of row, at least, for kinds to be worth telling apart
_EXACT = 2**53  # up to here float64 holds every integer

Progress = Callable[[int, int | None, float | None], object]
Summing = Callable[["_Drawing"], Any]


@dataclass(frozen=True)
class Statistics:
    """What an additive metric sums up, sample by sample.

    Attributes:
        values: an array [samples, statistics].
        columns: names of the statistics, where the samples decided which there are.
    """

    values: Any
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """The value of one metric.

    Attributes:
        value: over all samples.
        low, high: its 95 % interval. None where the metric is no function of sums, where there are fewer than ten
            samples, and where drawing from them tells nothing: all are alike, or the drawn ones score quite otherwise.
        protocol: what the number is, in a line.
        facts: what its metric says of such numbers.
        statistics: what to pair it by; None where the metric is no function of sums.
    """

    value: float
    low: float | None
    high: float | None
    protocol: str
    facts: MetricFacts
    statistics: Statistics | None


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
        """Return the statistics of the metrics that have them, by name."""
        return {name: each.statistics for name, each in self.by_name.items() if each.statistics is not None}


def score(
    metrics: Mapping[str, Metric],
    references: Sequence[Any],
    predictions: Sequence[Any],
    seed: int,
    progress: Progress = lambda done, total, seconds_left: None,
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
    values = {name: _value(name, metric, references, predictions) for name, metric in metrics.items()}
    tables = {name: score.statistics.values for name, score in values.items() if score.statistics is not None}
    sums: dict[str, Any] = {}
    if tables and len(references) >= _FEWEST:
        sums = dict(zip(tables, _drawn(list(tables.values()), seed, progress), strict=True))
    return Scores(
        len(references), {name: _bounded(each, metrics[name], sums.get(name)) for name, each in values.items()}
    )


def paired(
    own: Statistics, original: Statistics, metric: AdditiveMetric, seed: int
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

    both = _aligned(own, original)

    def difference(sums: Any) -> float:
        return float(metric.reduce(sums[0])) - float(metric.reduce(sums[1]))

    value = difference(both.sum(axis=1))
    if both.shape[1] < _FEWEST:
        return value, None, None
    drawn = np.array([difference(sums) for sums in zip(*_drawn(list(both), seed), strict=True)])
    return value, *(_ends(drawn, value) or (None, None))


def write(kept: Mapping[str, Statistics], path: Path) -> None:
    """Keep the statistics of metrics, by name, in numpy's format, so that another run can be paired."""
    import numpy as np

    arrays: dict[str, Any] = {name: each.values for name, each in kept.items()}
    arrays |= {name + _COLUMNS: np.array(each.columns, dtype=np.str_) for name, each in kept.items()}
    with whole_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path) -> dict[str, Statistics]:
    """Read what `write` wrote, by the metric's name, whoever wrote it.

    Raises:
        Malformed: it is none of that, or takes more memory than it may.
        OSError: it can't be read.
    """
    arrays = _arrays(path)
    return {
        name: _checked(f"{path.name}, {name}", values, arrays.get(name + _COLUMNS))
        for name, values in arrays.items()
        if not name.endswith(_COLUMNS)
    }


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an archive of numpy's by name, none of which is of objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            check_size(f"{path.name}, unpacked,", sum(entry.file_size for entry in entries), _MOST_BYTES)
            return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}
    except Malformed:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise Malformed(f"{path.name} can't be read: {named_line(error)}.") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    """Read an array, if it is as large as its head says: numpy itself takes the memory that the head asks for."""
    import numpy as np

    with archive.open(entry) as file:
        read_head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in read_head:
            raise Malformed(f"{entry.filename} is of version {version} of numpy's format.")
        shape, in_columns, kind = read_head[version](file)
        count = math.prod(shape)
        if kind.hasobject or min(shape, default=1) < 0 or count * kind.itemsize != entry.file_size - file.tell():
            raise Malformed(f"{entry.filename} does not hold the {count:,} numbers that it claims.")
        values = np.empty(count, kind)
        if count and file.readinto(values.view(np.uint8)) < count * kind.itemsize:  # type: ignore[attr-defined]
            raise EOFError(f"{entry.filename} ends too early")
    return values.reshape(shape, order="F" if in_columns else "C")


def _checked(name: str, values: Any, columns: Any) -> Statistics:
    import numpy as np

    is_table = values.dtype.kind in "fiu" and values.ndim == 2 and bool(np.isfinite(values).all())
    if not is_table or columns is None or columns.dtype.kind != "U" or columns.ndim != 1:
        raise Malformed(f"{name} are no statistics of samples.")
    if len(columns) not in (0, values.shape[1]):
        raise Malformed(f"{name} have {values.shape[1]} columns and {len(columns)} names.")
    return Statistics(values, tuple(map(str, columns)))


def _value(name: str, metric: Metric, references: Sequence[Any], predictions: Sequence[Any]) -> Score:
    """Return the value of a metric, without an interval."""
    import numpy as np

    if not isinstance(metric, AdditiveMetric):
        value = metric.compute(references, predictions)
        if not np.isfinite(value):
            raise ValueError(f"{name} of these samples is no finite number")
        return Score(float(value), None, None, metric.protocol, metric.facts, None)
    values = np.asarray(metric.statistics(references, predictions), dtype=np.float64)
    if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise ValueError(f"{name}: sample {wrong[0]} (and {len(wrong) - 1} more) makes no finite number")
    value = float(metric.reduce(values.sum(axis=0)))
    if not np.isfinite(value):
        raise ValueError(f"{name} of these samples is no finite number")
    statistics = Statistics(values, metric.columns(references, predictions))
    return Score(value, None, None, metric.protocol, metric.facts, statistics)


def _bounded(score: Score, metric: Metric, sums: Any) -> Score:
    """Return a score with its interval, from the sums [resamples, statistics] of the drawn samples."""
    import numpy as np

    if sums is None or not isinstance(metric, AdditiveMetric):
        return score
    ends = _ends(np.array([metric.reduce(each) for each in sums]), score.value)
    return score if ends is None or ends[0] >= ends[1] else replace(score, low=ends[0], high=ends[1])


def _drawn(tables: Sequence[Any], seed: int, progress: Progress = lambda done, total, seconds_left: None) -> list[Any]:
    """Sum up the statistics of samples that are drawn with replacement.

    Args:
        tables: arrays [samples, statistics], all of the same samples.
        seed: of the drawing.
        progress: told how often it was drawn, how often it will be, and about how many seconds that takes.

    Returns:
        For each table the sums [resamples, statistics].
    """
    import numpy as np

    ways = [_summing(table) for table in tables]
    sums: list[list[Any]] = [[] for _ in tables]
    done, started = 0, time.monotonic()
    for drawing in _drawings(len(tables[0]), seed):
        for found, way in zip(sums, ways, strict=True):
            found.append(way(drawing))
        done += len(drawing.samples)
        progress(done, RESAMPLES, (time.monotonic() - started) / done * (RESAMPLES - done))
    return [np.concatenate(found) for found in sums]


class _Drawing:
    """Some resamples.

    Args:
        samples: the numbers of the drawn samples [resamples, samples].
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    @cached_property
    def counts(self) -> Any:
        """How often each sample is drawn: float64 [resamples, samples]."""
        import numpy as np

        return _counted(self.samples, self.samples.shape[1]).astype(np.float64)


def _drawings(count: int, seed: int) -> Iterator[_Drawing]:
    """Draw from so many samples, some resamples at once, as memory allows."""
    import numpy as np

    generator = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _AT_ONCE // count))
    for done in range(0, RESAMPLES, rows):
        yield _Drawing(generator.integers(0, count, (min(rows, RESAMPLES - done), count)))


def _summing(table: Any) -> Summing:
    """Return the quickest way to sum up the drawn samples' statistics [samples, statistics].

    Counts of things are integers, and few rows differ, however many there are: then it is enough to count how often
    each kind of row is drawn. Sums of integers are exact in whatever order, so both ways give the same.
    """
    kinds = _kinds(table)
    if kinds is None:
        return lambda drawing: drawing.counts @ table
    rows, kind_of = kinds
    return lambda drawing: _counted(kind_of[drawing.samples], len(rows)) @ rows


def _kinds(table: Any) -> tuple[Any, Any] | None:
    """Return the rows of a table that differ, and which of them each row is.

    None where they are not integers, where their sums may be too large to be exact, and where most rows differ.
    """
    import numpy as np

    count, width = table.shape
    weights = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64)
    keys = np.zeros(count, dtype=np.uint64)  # equal rows have equal ones; column by column, which takes little memory
    for column, weight in zip(table.T, weights, strict=True):
        if np.abs(column).max(initial=0) * count >= _EXACT:
            return None
        whole = column.astype(np.int64)
        if (whole != column).any():
            return None
        keys += whole.astype(np.uint64) * weight
    _, first, kind_of = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) > count // _ALIKE:
        return None
    if any((column[first][kind_of] != column).any() for column in table.T):
        return None  # two that differ have the same key
    return table[first], kind_of.astype(np.min_scalar_type(len(first)))


def _counted(drawn: Any, kinds: int) -> Any:
    """Count how often each number below `kinds` stands in each row: [rows, kinds]."""
    import numpy as np

    places = drawn + kinds * np.arange(len(drawn))[:, None]
    return np.bincount(places.ravel(), minlength=len(drawn) * kinds).reshape(len(drawn), kinds)


def _ends(drawn: Any, value: float) -> tuple[float, float] | None:
    """Return the interval of a value from the drawn ones, corrected for how far their median is off.

    None where one of them is no number, and where they are so far off that the value would lie outside.
    """
    import numpy as np

    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    if not np.isfinite(drawn).all() or not 0 < below < 1:
        return None
    normal = NormalDist()
    shift, width = 2 * normal.inv_cdf(below), normal.inv_cdf(0.5 + _CONFIDENCE / 2)
    low, high = np.percentile(drawn, [100 * normal.cdf(shift - width), 100 * normal.cdf(shift + width)])
    return (float(low), float(high)) if low <= value <= high else None


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
