"""Decides which ratios and differences of a table are more than noise: all of them are judged together.

Each ratio of times, and each difference of a score, has its own interval. A table contains many of them, and at 5 %
one of twenty equal variants differs by chance. So the claims of one table are corrected as one family.

Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mlflow_compress.percentiles import LogError
from mlflow_compress.records import Row
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.against_original import MADE_OF_MEDIAN, latency
from mlflow_compress.reporting.table_text import DIFFERENCE

LEVEL = 0.05  # upper limit of the chance of any false claim in a table
_ROUNDED = 1e-6


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number: a claim holds where its corrected p-value is below the level.

    The smallest is multiplied by their number, the next by one less, and so on; the results never decrease.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def of_ratio(ratio: float, ends: tuple[float, float], degrees: float = math.inf) -> float:
    """Return the p-value of a ratio against 1, from its 95 % interval.

    Where the interval is wider on one side, the side towards 1 counts. So the p-value is below 5 % exactly where the
    interval does not contain 1.
    """
    towards_1 = math.log(ratio / ends[0]) if ratio > 1 else math.log(ends[1] / ratio)
    p_value = _p_value(abs(math.log(ratio)), towards_1, degrees)
    return max(p_value, LEVEL) if ends[0] <= 1 <= ends[1] else p_value


def of_difference(difference: float, ends: tuple[float, float]) -> float:
    """Return the p-value of a difference against 0, from its 95 % interval; see `of_ratio`."""
    towards_0 = difference - ends[0] if difference > 0 else ends[1] - difference
    p_value = _p_value(abs(difference), towards_0, math.inf)
    return max(p_value, LEVEL) if ends[0] <= 0 <= ends[1] else p_value


def of_mean(mean: float, error: float) -> float:
    """Return the p-value of a mean against 0, from its standard error, assuming a normal distribution."""
    return _p_value(abs(mean), error * LogError(1.0, math.inf).half_width(), math.inf)


def error_of_ratio(ratio: float, ends: tuple[float, float], degrees: float = math.inf) -> LogError:
    """Return the error of a ratio's logarithm, from the wider side of its 95 % interval."""
    wider = max(math.log(ends[1] / ratio), math.log(ratio / ends[0]))
    return LogError(wider / LogError(1.0, degrees).half_width(), degrees)


def corrected(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows of a table with `told_apart`: which ratios and differences are more than noise."""
    listed = tuple(rows)
    claims = [(index, name, p_value) for index, row in enumerate(listed) for name, p_value in _of_row(row).items()]
    all_verdicts: list[dict[str, bool]] = [{} for _ in listed]
    for (place, name, _), p_value in zip(claims, holm([claim[2] for claim in claims]), strict=True):
        all_verdicts[place][name] = p_value < LEVEL
    for row, verdicts in zip(listed, all_verdicts, strict=True):
        derived = {name: median for name in row.ratio_intervals if (median := _median_behind(name)) in verdicts}
        verdicts |= {name: verdicts[median] for name, median in derived.items()}
    return tuple(replace(row, told_apart=verdicts) for row, verdicts in zip(listed, all_verdicts, strict=True))


def _of_row(row: Row) -> dict[str, float]:
    """Return the p-value of each ratio and difference of a row, where its noise is known."""
    p_values = {
        name: of_ratio(row.ratios[name], ends, row.ratio_degrees.get(name, math.inf))
        for name, ends in row.ratio_intervals.items()
        if name in row.ratios and _median_behind(name) not in row.ratio_intervals  # these share the median's claim
    }
    for name in row.values:
        if name.endswith(DIFFERENCE) and (ends := difference_ends(row.values, name)):
            least = _least_p_value(row.values[name], name, row.values.get(metric_facts.COUNT, math.inf))
            p_values[name] = max(least, of_difference(row.values[name], ends))
    return p_values


def _median_behind(name: str) -> str:
    """Return the median latency that a metric is computed from alone; empty for other metrics."""
    device, _, quantity = name.partition("/")
    return latency(device) if quantity in MADE_OF_MEDIAN else ""


def difference_ends(values: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """Return the ends of a difference's or score's interval; None where there is none, or it excludes the value."""
    value, low, high = (values.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high"))
    return (low, high) if low <= value <= high else None


def _least_p_value(difference: float, name: str, samples: float) -> float:
    """Return the smallest p-value that a number of samples can give: all changed samples changed in one direction.

    For an accuracy the number of changed samples is known; for other scores all may have changed.

    Source: McNemar's test, exactly: the sign test of those samples that changed.
    """
    changed = abs(difference) * samples
    is_count = math.isfinite(changed) and abs(changed - round(changed)) < _ROUNDED
    is_share = metric_facts.of(name.removesuffix(DIFFERENCE), {}).scale == "share"
    return min(1.0, 2 * math.ldexp(1.0, -round(min(changed if is_share and is_count else samples, 1000))))


def _p_value(distance: float, half_width: float, degrees: float) -> float:
    """Return the probability of a distance at least this large, given the half width of its 95 % interval."""
    if distance == 0 or half_width <= 0:
        return float(distance == 0)
    return LogError(half_width / LogError(1.0, degrees).half_width(), degrees).p_value(math.exp(min(distance, 700.0)))
