"""HTML: one file that a browser opens without a network, with charts, sorting and filters."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, ClassVar

from mlflow_compress import words
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import table_text
from mlflow_compress.reporting.chart_choices import Axis, axes, bars, classes, metrics, objectives
from mlflow_compress.reporting.table_text import MISSING, Column, is_original
from mlflow_compress.sockets import Renderer

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # what HTML or UTF-8 can't hold
_LINK = re.compile(r"https?://[^\s]+\Z", re.IGNORECASE)


@dataclass
class Html(Renderer):
    """One page that loads nothing: the table, notes and failures as HTML, and a script that sorts, filters and draws.

    It is complete without the script. Names and reasons are text whatever they hold, and the page's own policy lets no
    other script or style run. Only characters that HTML can't hold (controls) are replaced, by U+FFFD.
    """

    suffix: ClassVar[str] = ".html"

    def render(self, comparison: Comparison) -> bytes:
        """Write the comparison as one UTF-8 page."""
        language, page = comparison.language, words.PAGE[comparison.language]
        style, script = _part("page.css"), _part("page.js")
        heading = ": ".join(filter(None, (words.COMPARISON[language], comparison.title)))
        shown = _columns(comparison)
        failures = [table_text.failure(each, language) for each in comparison.failures]
        filled = {
            "language": language,
            "style": style,
            "style_hash": _hash(style),
            "script": script,
            "script_hash": _hash(script),
            "title": _text(heading),
            "heading": _text(heading),
            "facts": _text(_facts(comparison)),
            "skip": page["skip"],
            "filters_label": words.PAGE_SCRIPT[language]["filters"],
            "scatter_title": words.PAGE_SCRIPT[language]["scatter"],
            "bars_title": words.PAGE_SCRIPT[language]["bars_title"],
            "table_title": page["table"],
            "caption": page["caption"],
            "legend_title": page["legend"],
            "legend": _text(table_text.legend(comparison)),
            "table_class": "named" if any(column.key == "method" for column in shown) else "",
            "head": "\n".join(_head(shown, language)),
            "body": "\n".join(_line(comparison, at, shown) for at in range(len(comparison.rows))),
            "summaries": _list("summaries", table_text.summaries_title(language), table_text.summaries(comparison)),
            "notes": _list("notes", words.NOTES[language], comparison.footnotes, numbered=True),
            "failures": _list("failures", table_text.failures_title(language), failures),
            "data": _json(_data(comparison)),
        }
        return Template(_part("page.html")).substitute(filled).encode()


@cache
def _part(name: str) -> str:
    return files("mlflow_compress.renderers").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _text(text: str) -> str:
    """Make plain text of any text, for an element or a quoted attribute."""
    return html.escape(_UNSEEN.sub("\ufffd", text)).replace("\r", "&#13;")


def _json(data: Any) -> str:
    """Write data so that it can't end its script element, nor begin a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


def _facts(it: Comparison) -> str:
    return words.PAGE[it.language]["facts"].format(
        rows=len(it.rows),
        **{f"{kind}s": len({getattr(row, kind) for row in it.rows}) for kind in ("team", "model", "method")},
    )


def _list(name: str, title: str, lines: Sequence[str], *, numbered: bool = False) -> str:
    if not lines:
        return ""
    tag = "ol" if numbered else "ul"
    items = (
        f'<li id="note-{index}">{_text(line)}</li>' if numbered else f"<li>{_text(line)}</li>"
        for index, line in enumerate(lines, 1)
    )
    return (
        f'<section class="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n<{tag}>\n'
        + "\n".join(items)
        + f"\n</{tag}>\n</section>"
    )


def _columns(it: Comparison) -> tuple[Column, ...]:
    """Give the table's columns; where there are links to runs, these come last."""
    runs = Column("runs", {language: page["runs"] for language, page in words.PAGE.items()}, numeric=False)
    return (*table_text.columns(it.columns, it.metrics), *((runs,) if any(row.links for row in it.rows) else ()))


def _head(shown: Sequence[Column], language: str) -> Iterator[str]:
    yield "<tr>"
    for column in shown:
        classes = "number" if column.numeric else column.key
        yield f'<th scope="col" class="{classes}">{_text(column.header[language])}</th>'
    yield "</tr>"


def _line(it: Comparison, at: int, shown: Sequence[Column]) -> str:
    row = it.rows[at]
    original = ' class="original"' if is_original(row) else ""
    return f'<tr data-row="{at}"{original}>{"".join(_cell(it, row, column) for column in shown)}</tr>'


def _cell(it: Comparison, row: Row, column: Column) -> str:
    if column.key == "runs":
        links = _links(row, it.language)
        return f"<td>{links}</td>" if links else "<td data-missing></td>"
    (text,) = table_text.cells(row, (column,), it.language, it.metrics)
    sorting = _sorting(row, column, text)
    if column.key == "method":
        notes = "".join(f' <a class="mark" href="#note-{note + 1}">[{note + 1}]</a>' for note in row.notes)
        whose = _text(" · ".join(filter(None, (row.model, row.team))))
        return f'<th scope="row" data-of="{whose}"{sorting}><span>{_text(text)}</span>{notes}</th>'
    if not column.numeric:
        return f'<td class="text {column.key}"{sorting}>{_text(text)}</td>'
    value, found, against = text.partition(" (")
    if found:
        against = f' <span class="against{_better(it, row, column.key)}">({_text(against)}</span>'
    return f'<td class="number"{sorting}>{_text(value)}{against}</td>'


def _sorting(row: Row, column: Column, text: str) -> str:
    """Say what a cell is sorted by, where that isn't its text."""
    if text == MISSING and column.key not in ("team", "model", "method"):
        return " data-missing"
    if column.key == "pareto":
        return f' data-value="{int(bool(row.dominated))}"'
    if column.key == "quality":
        first = table_text.scores(row.values)[0]
        return f' data-group="{_text(first)}" data-value="{row.values[first]!r}"'
    return f' data-value="{row.values[column.key]!r}"' if column.numeric else ""


def _better(it: Comparison, row: Row, name: str) -> str:
    """Say whether a ratio is to the good, where that is known and no noise."""
    found, greater = row.ratios[name], it.greater_is_better.get(name)
    low, high = row.ratio_intervals.get(name, (0.0, 0.0))
    if greater is None or table_text.ratio(found) == table_text.ratio(1) or low <= 1 <= high:
        return ""
    return " better" if (found > 1) == greater else " worse"


def _links(row: Row, language: str) -> str:
    name = ", ".join(filter(None, (row.team, row.model, row.method)))
    links = {words.DEVICES.get(device, device): link for device, link in row.links.items() if _LINK.match(link)}
    return " ".join(
        f'<a href="{_text(link)}" target="_blank" rel="noopener noreferrer" '
        f'aria-label="{_text(words.PAGE[language]["run"].format(device=device, name=name))}">{_text(device)}</a>'
        for device, link in links.items()
    )


def _data(it: Comparison) -> dict[str, Any]:
    """Give what the script draws from: texts, rows, and a list of numbers for each metric."""
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
    return {
        "team": row.team,
        "model": row.model,
        "method": row.method,
        "label": label,
        "method_label": table_text.method(row.method, language),
        "hardware": row.hardware,
        "dominated": row.dominated,
        "ranked_in": row.ranked_in,
        "original": is_original(row),
        "by_hand": row.by_hand,
    }


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
        "intervals": {
            str(at): [_short(end) for end in row.ratio_intervals[name]]
            for at, row in enumerate(it.rows)
            if name in row.ratio_intervals and all(map(math.isfinite, row.ratio_intervals[name]))
        },
    }


def _short(value: float | None) -> float | None:
    """Keep the digits that a chart can show."""
    return None if value is None else float(f"{value:.6g}")
