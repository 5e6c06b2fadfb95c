"""HTML: one file that a browser opens without a network, with charts, sorting and filters."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from mlflow_compress import words
from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import table_text
from mlflow_compress.reporting.chart_choices import Axis, axes, bars, classes, metrics, objectives
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.table_text import MISSING, Column, is_original, is_told_apart
from mlflow_compress.sockets import Renderer

if TYPE_CHECKING:
    from jinja2 import Environment

_LINK = re.compile(r"https?://[^\s]+\Z", re.IGNORECASE)


@dataclass
class Html(Renderer):
    """One page that loads nothing: the table, notes and failures as HTML, and a script that sorts, filters and draws.

    It is complete without the script. Names and reasons are text whatever they hold, and the page's own policy lets no
    other script or style run. Only characters that no page shows (`plain_text`) are replaced, by U+FFFD.
    """

    suffix: ClassVar[str] = ".html"

    def render(self, comparison: Comparison) -> bytes:
        """Write the comparison as one UTF-8 page."""
        return self.page(comparison)

    def page(self, comparison: Comparison, trail: Sequence[Link] = ()) -> bytes:
        """Write the comparison as one UTF-8 page.

        Args:
            comparison: what is shown.
            trail: links above it, to where it belongs on a server.
        """
        language, texts = comparison.language, words.PAGE[comparison.language]
        script_texts = words.PAGE_SCRIPT[language]
        style, script = _part("page.css"), _part("page.js")
        shown = _columns(comparison)
        about = {
            "language": language,
            "style": style,
            "style_hash": _hash(style),
            "script": script,
            "script_hash": _hash(script),
            "data": _json(_data(comparison)),
            "heading": ": ".join(filter(None, (words.COMPARISON[language], comparison.title))),
            "facts": _facts(comparison),
            "trail": trail,
            "texts": _own(texts),
            "script_texts": _own({name: text for name, text in script_texts.items() if isinstance(text, str)}),
            "columns": shown,
            "is_named": any(column.key == "method" for column in shown),
            "rows": [_line(comparison, row, shown) for row in comparison.rows],
            "legend": table_text.legend(comparison),
            "summaries_title": table_text.summaries_title(language),
            "summaries": table_text.summaries(comparison),
            "notes_title": words.NOTES[language],
            "notes": comparison.footnotes,
            "failures_title": table_text.failures_title(language),
            "failures": [table_text.failure(each, language) for each in comparison.failures],
        }
        return filled("page.html", about)


@dataclass(frozen=True)
class Link:
    """A link of a page: where to, its text, and what it is where the text alone does not say it."""

    address: str
    text: str
    label: str = ""


@dataclass(frozen=True)
class _Cell:
    """One cell of the table.

    Attributes:
        kind: `method`, `number`, `runs`, or the key of a column of text.
        text: what stands in it.
        against: behind it, the ratio to the original in brackets.
        verdict: whether that is `better` or `worse`; empty where it says nothing.
        value: what it is sorted by, where that isn't its text.
        group: what must be the same for its value to be compared with others'.
        is_missing: whether it has nothing to be sorted by.
        whose, notes: of a method: its model and team, and its footnotes.
        links: of runs.
    """

    kind: str
    text: str = ""
    against: str = ""
    verdict: str = ""
    value: str = ""
    group: str = ""
    is_missing: bool = False
    whose: str = ""
    notes: tuple[int, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class _Line:
    """One row of the table."""

    is_original: bool
    cells: tuple[_Cell, ...]


def filled(template: str, about: Mapping[str, object]) -> bytes:
    """Fill one of the templates beside this file. Every text is escaped, and what HTML can't hold is replaced.

    Args:
        template: its file's name.
        about: what it names.
    """
    return _templates().get_template(template).render(about).encode()


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FunctionLoader

    return Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _plain(value: object) -> object:
    """Make plain text of any text, for an element or a quoted attribute; what is markup already stays."""
    from markupsafe import Markup

    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return Markup(html.escape(visible(value)).replace("\r", "&#13;"))  # noqa: S704  (it is escaped)


def _own(texts: Mapping[str, str]) -> dict[str, str]:
    """Leave the apostrophes of our own texts as they are: they hold no markup."""
    from markupsafe import Markup

    return {name: Markup(html.escape(text, quote=False)) for name, text in texts.items()}  # noqa: S704  (it is escaped)


@cache
def _part(name: str) -> str:
    return files("mlflow_compress.renderers").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(data: Any) -> str:
    """Write data so that it can't end its script element, nor begin a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


def _facts(it: Comparison) -> str:
    return words.PAGE[it.language]["facts"].format(
        rows=len(it.rows),
        **{f"{kind}s": len({getattr(row, kind) for row in it.rows}) for kind in ("team", "model", "method")},
    )


def _columns(it: Comparison) -> tuple[Column, ...]:
    """Return the table's columns; where there are links to runs, these come last."""
    runs = Column("runs", {language: page["runs"] for language, page in words.PAGE.items()}, numeric=False)
    return (*table_text.columns(it.columns, it.metrics), *((runs,) if any(row.links for row in it.rows) else ()))


def _line(it: Comparison, row: Row, shown: Sequence[Column]) -> _Line:
    return _Line(is_original(row), tuple(_cell(it, row, column) for column in shown))


def _cell(it: Comparison, row: Row, column: Column) -> _Cell:
    if column.key == "runs":
        links = tuple(_links(row, it.language))
        return _Cell("runs", links=links, is_missing=not links)
    (text,) = table_text.cells(row, (column,), it.language, it.metrics)
    cell = _sorted(_Cell("number" if column.numeric else column.key, text), row, column, it.metrics)
    if column.key == "method":
        return replace(cell, whose=" · ".join(filter(None, (row.model, row.team))), notes=row.notes)
    value, has_ratio, against = text.partition(" (")
    if column.numeric and has_ratio:
        return replace(cell, text=value, against=f"({against}", verdict=_verdict(it, row, column.key))
    return cell


def _sorted(cell: _Cell, row: Row, column: Column, known: Known) -> _Cell:
    """Say what a cell is sorted by, where that isn't its text."""
    if cell.text == MISSING and column.key not in ("team", "model", "method"):
        return replace(cell, is_missing=True)
    if column.key == "pareto":
        return replace(cell, value=str(int(bool(row.dominated))))
    if column.key == "quality":
        first = table_text.scores(row.values, known)[0]
        return replace(cell, group=first, value=repr(row.values[first]))
    return replace(cell, value=repr(row.values[column.key])) if column.numeric else cell


def _verdict(it: Comparison, row: Row, name: str) -> str:
    """Return whether a ratio is to the good, where that is known and no noise."""
    found, greater = row.ratios[name], it.greater_is_better.get(name)
    is_one = table_text.ratio(found) == table_text.ratio(1)
    if greater is None or is_one or not is_told_apart(row, name):
        return ""
    return "better" if (found > 1) == greater else "worse"


def _links(row: Row, language: str) -> Iterator[Link]:
    name = ", ".join(filter(None, (row.team, row.model, row.method)))
    for key, link in row.links.items():
        if _LINK.match(link):
            device = words.DEVICES.get(key, key)
            yield Link(link, device, words.PAGE[language]["run"].format(device=device, name=name))


def _data(it: Comparison) -> dict[str, Any]:
    """Return what the script draws from: texts, rows, and a list of numbers for each metric."""
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
        "hardware": row.hardware,
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
