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
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def score(metrics: Mapping[str, Metric], references: Sequence[Any], predictions: Sequence[Any], seed: int) -> Scores:
    """Score predictions.

    Args:
        metrics: by the names that their numbers shall have.
        references: one for each sample.
        predictions: one for each sample.
        seed: of the drawing; with the same seed, all metrics are made of the same drawn samples.

    Raises:
        ValueError: there are no samples, not as many predictions as references, or they make no number.
    """
    if not len(references) or len(references) != len(predictions):
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
    return Scores(
        len(references), {name: _score(name, each, references, predictions, seed) for name, each in metrics.items()}
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
    drawn = np.array([difference(sums) for sums in _drawn(both, seed).swapaxes(0, 1)])
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


def _score(name: str, metric: Metric, references: Sequence[Any], predictions: Sequence[Any], seed: int) -> Score:
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
    ends = None
    if len(values) >= _FEWEST:
        ends = _ends(np.array([metric.reduce(sums) for sums in _drawn(values, seed)]), value)
    low, high = ends if ends is not None and ends[0] < ends[1] else (None, None)
    return Score(value, low, high, metric.protocol, metric.facts, statistics)


def _drawn(values: Any, seed: int) -> Any:
    """Sum up the statistics [..., samples, statistics] of samples drawn with replacement: [..., resamples, statistics].

    The sums are how often each sample was drawn times its statistics.
    """
    import numpy as np

    count = values.shape[-2]
    generator = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _AT_ONCE // count))
    sizes = [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
    counts = (_counts(generator.integers(0, count, (size, count))) for size in sizes)
    return np.concatenate([each @ values for each in counts], axis=-2)


def _counts(drawn: Any) -> Any:
    """Count how often each sample is drawn, from the drawn ones' numbers: both [resamples, samples]."""
    import numpy as np

    rows, count = drawn.shape
    places = drawn + count * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


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
