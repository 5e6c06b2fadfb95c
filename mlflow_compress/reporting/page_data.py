"""The data of the page's script: the rows of a table, and their numbers as lists, ready for JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from mlflow_compress import words
from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import hardware_names, table_text
from mlflow_compress.reporting.chart_choices import (
    Axis,
    axes,
    bars,
    charted,
    judged_axes,
    metrics,
    objectives,
    verdicts,
)
from mlflow_compress.reporting.table_text import is_original, is_told_apart


def page_data(comparison: Comparison) -> dict[str, Any]:
    """Return the data of the page's script: texts, rows, and a list of numbers for each metric."""
    comparison = charted(comparison)
    names = metrics(comparison.rows)
    chosen_axes = axes(comparison)
    start: dict[str, str] = {"colour": "method"}
    if chosen_axes:
        start |= {key: _axis_key(axis, names) for key, axis in zip("xy", chosen_axes, strict=True)}
    if compared := bars(comparison):
        start["bars"] = str(names.index(compared))
    return {
        "words": words.PAGE_SCRIPT[comparison.language],
        "start": start,
        "rows": [_row(row, comparison.language) for row in comparison.rows],
        "metrics": [_metric(comparison, name) for name in names],
        "ranked": _ranked(comparison, names),
        "verdicts": _verdicts(comparison, names),
    }


def _ranked(comparison: Comparison, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the axes of the objectives, and whether exactly two numbers decided the Pareto column."""
    axes_of_it = objectives(comparison)
    if axes_of_it is None:
        return None
    return {"axes": [names.index(axis.name) for axis in axes_of_it], "has_line": len(comparison.objectives) == 2}


def _verdicts(comparison: Comparison, names: Sequence[str]) -> dict[str, list[int | None]]:
    """Return which rows are beaten, by two axes: for each row the number of its group, negative where it is beaten."""
    by_axes: dict[str, list[int | None]] = {}
    for pair in itertools.combinations(judged_axes(comparison), 2):
        judged = verdicts(comparison, pair)
        if any(judged):
            key = "|".join(_axis_key(axis, names) for axis in pair)
            by_axes[key] = [verdict and (-1 - verdict[1] if verdict[0] else verdict[1]) for verdict in judged]
    return by_axes


def _axis_key(axis: Axis, names: Sequence[str]) -> str:
    """Return the script's key of an axis: its metric's index, with `r` where it is relative to the original."""
    return f"{names.index(axis.name)}{'r' * axis.relative}"


def _row(row: Row, language: str) -> dict[str, Any]:
    (label,) = table_text.cells(row, table_text.columns(("method",)), language)
    facts = {
        "team": row.team,
        "model": row.model,
        "method": row.method,
        "label": label,
        "method_label": table_text.method(row.method, language),
        "hardware": hardware_names.short(row.hardware, language),
        "original": is_original(row),
        "by_hand": row.by_hand,
    }
    return {name: visible(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}


def _metric(comparison: Comparison, name: str) -> dict[str, Any]:
    plain, relative = Axis(name), Axis(name, relative=True)
    distances = [relative.value(row) for row in comparison.rows]
    has_distances = any(
        distance is not None and not is_original(row) for distance, row in zip(distances, comparison.rows, strict=True)
    )
    return {
        "label": plain.label(comparison.language, comparison.metrics),
        "relative_label": relative.label(comparison.language, comparison.metrics),
        "group": name.partition("/")[0],
        "greater_is_better": comparison.greater_is_better.get(name),
        "values": [_short(plain.value(row)) for row in comparison.rows],
        "relative": [_short(distance) for distance in distances] if has_distances else None,
        "told_apart": {
            str(index): is_told_apart(row, name) for index, row in enumerate(comparison.rows) if name in row.ratios
        },
        "intervals": {
            str(index): [_short(end) for end in row.ratio_intervals[name]]
            for index, row in enumerate(comparison.rows)
            if name in row.ratio_intervals and all(map(math.isfinite, row.ratio_intervals[name]))
        },
    }


def _short(value: float | None) -> float | None:
    """Round to the digits that a chart can show."""
    return None if value is None else float(f"{value:.6g}")
