"""Decides whether two rows of a table differ in a number by more than noise, so that one may be called better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlflow_compress.percentiles import LogError, difference_interval, error_of_launches, ratio_error
from mlflow_compress.records import Row
from mlflow_compress.reporting import claims, metric_facts
from mlflow_compress.reporting.against_original import MADE_OF_MEDIAN, latency
from mlflow_compress.reporting.table_text import DIFFERENCE, MEMORY_NOISE, is_original
from mlflow_compress.words import DEVICES


def is_noisy(name: str) -> bool:
    """Return whether a number changes when it is measured again; sizes do not."""
    group = name.partition("/")[0]
    return group == metric_facts.GROUP or group in DEVICES


def differ(one: Row, other: Row, name: str, comparisons: int = 1) -> bool:
    """Return whether two rows differ in a metric by more than noise; False where the noise is unknown.

    Args:
        one: a row that has the number.
        other: another row.
        name: the name of the metric.
        comparisons: the number of pairs compared, for Bonferroni's correction at 5 %.
    """
    values = one.values[name], other.values[name]
    if values[0] == values[1]:
        return False
    level = claims.LEVEL / comparisons
    if name.startswith(f"{metric_facts.GROUP}/"):
        p_value = _p_of_scores(one, other, name)
        return p_value is not None and p_value < level
    if name.partition("/")[0] not in DEVICES:
        return True
    if name.endswith("_mib"):
        return _differ_in_memory(*values)
    p_value = _p_of_times(one, other, name)
    return p_value is not None and p_value < level


def differ_from_originals(one: Row, other: Row, name: str, comparisons: int = 1) -> bool:
    """Return whether two rows' distances from their originals differ by more than noise; see `differ`.

    Args:
        one: a row with a ratio or a score's difference, or an original.
        other: another row, maybe with another original.
        name: the name of the metric.
        comparisons: the number of pairs compared.
    """
    level = claims.LEVEL / comparisons
    if name.startswith(f"{metric_facts.GROUP}/"):
        p_value = _p_of_moved(one, other, name)
        return p_value is not None and p_value < level
    ratios = [1.0 if is_original(row) else row.ratios[name] for row in (one, other)]
    if ratios[0] == ratios[1]:
        return False
    device = name.partition("/")[0]
    if device not in DEVICES:
        return True
    if name.endswith("_mib"):
        return _differ_in_memory(*ratios)
    p_value = _p_of_ratios(one, other, latency(device)) if _is_of_median(name) else None
    return p_value is not None and p_value < level


def _differ_in_memory(one: float, other: float) -> bool:
    return min(one, other) <= 0 or abs(math.log(one / other)) > math.log1p(MEMORY_NOISE)


def _is_of_median(name: str) -> bool:
    """Return whether a number is a median latency, or computed from one alone: for other times the noise is unknown."""
    device, _, quantity = name.partition("/")
    return name == latency(device) or quantity in MADE_OF_MEDIAN


def _have_one_original(one: Row, other: Row, group: str) -> bool:
    """Return whether two rows have the same original: each batch size and setting has its own."""
    work = [(row.team, row.model, row.circumstances.get(f"{group}_work", "")) for row in (one, other)]
    return work[0] == work[1]


def _agree(judged: Sequence[float], displayed: Sequence[float]) -> bool:
    """Return whether the rows' distances from their original and their own numbers have the same order.

    They may not: of two variants, the slower one in turns with the original can have the shorter time in its own run,
    because the original's run was measured at another moment. Then neither is called better.
    """
    return (judged[0] < judged[1]) == (displayed[0] < displayed[1])


def _p_of_scores(one: Row, other: Row, name: str) -> float | None:
    """Return the p-value of a difference of scores: by their differences from the original, else by the scores."""
    if _have_one_original(one, other, metric_facts.GROUP) and (p_value := _p_of_moved(one, other, name)) is not None:
        moved = [0.0 if is_original(row) else row.values[name + DIFFERENCE] for row in (one, other)]
        return p_value if _agree(moved, [one.values[name], other.values[name]]) else 1.0
    own, other_score = _scored(one, name), _scored(other, name)
    if own is None or other_score is None:
        return None
    return claims.of_difference(own[0] - other_score[0], difference_interval(*own, *other_score))


def _p_of_moved(one: Row, other: Row, name: str) -> float | None:
    moved = _moved(one, name), _moved(other, name)
    if moved[0] is None or moved[1] is None:
        return None
    return claims.of_difference(moved[0][0] - moved[1][0], difference_interval(*moved[0], *moved[1]))


def _moved(row: Row, name: str) -> tuple[float, tuple[float, float]] | None:
    """Return a score's difference from the original's, and its interval; for the original itself 0."""
    if is_original(row):
        return 0.0, (0.0, 0.0)
    ends = claims.difference_ends(row.values, name + DIFFERENCE)
    return None if ends is None else (row.values[name + DIFFERENCE], ends)


def _scored(row: Row, name: str) -> tuple[float, tuple[float, float]] | None:
    ends = claims.difference_ends(row.values, name)
    return None if ends is None else (row.values[name], ends)


def _p_of_times(one: Row, other: Row, name: str) -> float | None:
    """Return the p-value of a ratio of latencies, or of metrics derived from them; None where the noise is unknown."""
    if not _is_of_median(name):
        return None
    device = name.partition("/")[0]
    median = latency(device)
    medians = [row.values.get(median, 0.0) for row in (one, other)]
    if _have_one_original(one, other, device) and (p_value := _p_of_ratios(one, other, median)) is not None:
        ratios = [1.0 if is_original(row) else row.ratios[median] for row in (one, other)]
        return p_value if _agree(ratios, medians) else 1.0
    errors = _error(one, device), _error(other, device)
    if errors[0] is None or errors[1] is None or min(medians) <= 0:
        return None
    return ratio_error(errors[0], errors[1]).p_value(medians[0] / medians[1])


def _p_of_ratios(one: Row, other: Row, name: str) -> float | None:
    ratios = _ratio(one, name), _ratio(other, name)
    if ratios[0] is None or ratios[1] is None:
        return None
    return ratio_error(ratios[0][1], ratios[1][1]).p_value(ratios[0][0] / ratios[1][0])


def _ratio(row: Row, name: str) -> tuple[float, LogError] | None:
    """Return the ratio of a latency to the original's, and its error; for the original itself 1."""
    if is_original(row):
        return 1.0, LogError(0.0, math.inf)
    if name not in row.ratio_intervals or row.ratios.get(name, 0.0) <= 0:
        return None
    ratio, degrees = row.ratios[name], row.ratio_degrees.get(name, math.inf)
    return ratio, claims.error_of_ratio(ratio, row.ratio_intervals[name], degrees)


def _error(row: Row, device: str) -> LogError | None:
    launches, spread = (row.values.get(f"{device}/{name}", 0.0) for name in ("launches", "latency_launch_sd"))
    return error_of_launches(spread, int(launches)) if launches >= 3 and spread > 0 else None
