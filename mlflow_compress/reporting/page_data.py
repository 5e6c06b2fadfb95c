"""What the script of the page draws from: the rows of a table, and their numbers as lists, ready for JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from mlflow_compress import words
from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import hardware_names, table_text
from mlflow_compress.reporting.chart_choices import Axis, axes, bars, charted, classes, metrics, objectives
from mlflow_compress.reporting.table_text import is_original, is_told_apart


def page_data(it: Comparison) -> dict[str, Any]:
    """Return what the page's script draws from: texts, rows, and a list of numbers for each metric."""
    it = charted(it)
    names = metrics(it.rows)
    chosen = axes(it)
    start: dict[str, str] = {"colour": "method"}
    if chosen:
        start |= {key: f"{names.index(axis.name)}{'r' * axis.relative}" for key, axis in zip("xy", chosen, strict=True)}
    if compared := bars(it):
        start["bars"] = str(names.index(compared))
    return {
        "words": words.PAGE_SCRIPT[it.language],
        "start": start,
        "rows": [_row(row, it.language) for row in it.rows],
        "metrics": [_metric(it, name) for name in names],
        "ranked": _ranked(it, names),
        "classes": _classes(it.rows, names),
    }


def _ranked(it: Comparison, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the axes on which the column's verdict is drawn, and whether two numbers decided it."""
    axes_of_it = objectives(it)
    if axes_of_it is None:
        return None
    return {"axes": [names.index(axis.name) for axis in axes_of_it], "has_line": len(it.objectives) == 2}


def _classes(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[int]]:
    """Return which rows may be compared, by the groups of two axes: rows with the same number may."""
    axes_by_group = {axis.group: axis for name in names for axis in (Axis(name), Axis(name, relative=True))}
    numbered: dict[str, list[int]] = {}
    for one, other in itertools.combinations_with_replacement(sorted(axes_by_group), 2):
        keys = classes(rows, (axes_by_group[one], axes_by_group[other]))
        numbers = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        numbered[f"{one}|{other}"] = [numbers[key] for key in keys]
    return numbered


def _row(row: Row, language: str) -> dict[str, Any]:
    (label,) = table_text.cells(row, table_text.columns(("method",)), language)
    facts = {
        "team": row.team,
        "model": row.model,
        "method": row.method,
        "label": label,
        "method_label": table_text.method(row.method, language),
        "hardware": hardware_names.short(row.hardware),
        "dominated": row.dominated,
        "ranked_in": row.ranked_in,
        "original": is_original(row),
        "by_hand": row.by_hand,
    }
    return {name: visible(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}


def _metric(it: Comparison, name: str) -> dict[str, Any]:
    plain, relative = Axis(name), Axis(name, relative=True)
    distances = [relative.value(row) for row in it.rows]
    has_distances = any(
        found is not None and not is_original(row) for found, row in zip(distances, it.rows, strict=True)
    )
    return {
        "label": plain.label(it.language, it.metrics),
        "relative_label": relative.label(it.language, it.metrics),
        "group": name.partition("/")[0],
        "greater_is_better": it.greater_is_better.get(name),
        "values": [_short(plain.value(row)) for row in it.rows],
        "relative": [_short(found) for found in distances] if has_distances else None,
        "told_apart": {str(at): is_told_apart(row, name) for at, row in enumerate(it.rows) if name in row.ratios},
        "intervals": {
            str(at): [_short(end) for end in row.ratio_intervals[name]]
            for at, row in enumerate(it.rows)
            if name in row.ratio_intervals and all(map(math.isfinite, row.ratio_intervals[name]))
        },
    }


def _short(value: float | None) -> float | None:
    """Keep the digits that a chart can show."""
    return None if value is None else float(f"{value:.6g}")
