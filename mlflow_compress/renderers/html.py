"""HTML: one file that a browser opens without a network, with charts, sorting and filters."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from mlflow_compress import words
from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import table_text
from mlflow_compress.reporting.metric_facts import COUNT, GROUP, Known
from mlflow_compress.reporting.page_data import page_data
from mlflow_compress.reporting.table_text import COLUMNS, DIFFERENCE, MISSING, Column, is_original, is_told_apart
from mlflow_compress.sockets import Renderer

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# An inline icon, so that a browser does not request one from the server.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%230b5cad'%3E"
    "%3Cpath d='M1 1h2v12h12v2H1z'/%3E%3Ccircle cx='6' cy='4' r='2'/%3E%3Ccircle cx='9' cy='9' r='2'/%3E"
    "%3Ccircle cx='13' cy='10' r='2'/%3E%3C/svg%3E"
)
_KINDS = ("team", "model", "method")
_SCRIPT = ("elements", "theme", "table", "axes", "scatter", "bars", "start")
_AT_THE_END = ("pareto", "hardware")
_LINK = re.compile(r"https?://[^\s]+\Z", re.IGNORECASE)


@dataclass
class Html(Renderer):
    """One page that loads nothing: table, notes and failures as HTML, and a script for sorting, filters and charts.

    It is complete without the script. Names and reasons are always text, and the page's own policy blocks any other
    script or style. Only characters that no page shows (`plain_text`) are replaced, by U+FFFD.
    """

    suffix: ClassVar[str] = ".html"

    def render(self, comparison: Comparison) -> bytes:
        """Return the comparison as one UTF-8 page."""
        return self.page(comparison)

    def page(self, comparison: Comparison, trail: Sequence[Link] = ()) -> bytes:
        """Return the comparison as one UTF-8 page.

        Args:
            comparison: the comparison to show.
            trail: links above it, to its place on a server.
        """
        language, texts = comparison.language, words.PAGE[comparison.language]
        script_texts = words.PAGE_SCRIPT[language]
        style, script = _part("page.css"), page_script()
        columns = _columns(comparison)
        page_values = {
            "language": language,
            "style": style,
            "style_hash": _hash(style),
            "script": script,
            "script_hash": _hash(script),
            "data": _json(page_data(comparison)),
            "heading": ": ".join(filter(None, (words.COMPARISON[language], comparison.title))),
            "facts": _facts(comparison),
            "trail": trail,
            "texts": _plain_apostrophes(texts),
            "script_texts": _plain_apostrophes(
                {name: text for name, text in script_texts.items() if isinstance(text, str)}
            ),
            "columns": columns,
            "headers": {key: words.HEADERS[key][language] for key in words.SHORT_HEADERS},
            "is_named": any(column.key == "method" for column in columns),
            "rows": [_line(comparison, row, columns) for row in comparison.rows],
            "legend": table_text.legend(comparison),
            "summaries_title": table_text.summaries_title(language),
            "summaries": table_text.summaries(comparison),
            "notes_title": words.NOTES[language],
            "notes": comparison.footnotes,
            "failures_title": table_text.failures_title(comparison.failures, language),
            "failures": table_text.failure_lines(comparison.failures, language),
        }
        return filled("page.html", page_values)


@dataclass(frozen=True)
class Link:
    """A link of a page: its address, its text, and a label where the text alone is not clear."""

    address: str
    text: str
    label: str = ""


@dataclass(frozen=True)
class _Part:
    """One number of a cell.

    Attributes:
        text: the number.
        against: the distance from the original's, in brackets after the number.
        verdict: whether that is `better` or `worse`; empty where it is neither.
        noise: the uncertainty of that.
    """

    text: str
    against: str = ""
    verdict: str = ""
    noise: str = ""


@dataclass(frozen=True)
class _Cell:
    """One cell of the table.

    Attributes:
        kind: `method`, `number`, `runs`, or the key of a column of text.
        text: its content.
        title: the full content, where the text is shortened.
        parts: its numbers, if any.
        value: the sorting key, where it is not the text.
        group: what must be the same before its value is compared with others.
        is_missing: whether it has no sorting key.
        whose, notes: for a method: model and team, where these distinguish rows, and its footnotes.
        links: the links to runs.
    """

    kind: str
    text: str | Markup = ""
    title: str = ""
    parts: tuple[_Part, ...] = ()
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
    """Fill one of the templates next to this file. Every text is escaped, and what HTML can't contain is replaced.

    Args:
        template: the name of the template's file.
        about: the values that it uses.
    """
    return _templates().get_template(template).render({"icon": _ICON, **about}).encode()


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
    """Return any text as plain text, for an element or a quoted attribute; markup stays as it is."""
    from markupsafe import Markup

    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return Markup(html.escape(visible(value)).replace("\r", "&#13;"))  # noqa: S704  (it is escaped)


def _plain_apostrophes(texts: Mapping[str, str]) -> dict[str, str]:
    """Escape our own texts except their apostrophes: they contain no markup."""
    from markupsafe import Markup

    return {name: Markup(html.escape(text, quote=False)) for name, text in texts.items()}  # noqa: S704  (it is escaped)


@cache
def _part(name: str) -> str:
    return files("mlflow_compress.renderers").joinpath("page", name).read_text(encoding="utf-8")


@cache
def page_script() -> str:
    """Return the page's script: one function that contains all its parts."""
    parts = "\n".join(_part(f"{name}.js") for name in _SCRIPT)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(data: Any) -> str:
    """Return data as JSON that can't end its script element, nor begin a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", text)


def _facts(comparison: Comparison) -> str:
    """Return the number of rows, and their teams, models and methods: by name where there is only one."""
    texts, headers = words.PAGE[comparison.language], words.HEADERS
    facts = [texts["rows"].format(count=len(comparison.rows))]
    for kind in _KINDS:
        names = {getattr(row, kind) for row in comparison.rows}
        name = "" if kind == "method" or len(names) != 1 else visible(*names)
        facts.append(
            f"{headers[kind][comparison.language]}: {name}" if name else texts[f"{kind}s"].format(count=len(names))
        )
    return " · ".join(facts)


def _columns(comparison: Comparison) -> tuple[Column, ...]:
    """Return the page's columns: names, quality, numbers, circumstances, and where there are links to runs, these.

    Where the columns were not chosen, leave out those without information: a team or model that all rows share, and
    numbers that no row has.
    """
    runs = Column("runs", {language: page["runs"] for language, page in words.PAGE.items()}, numeric=False)
    linked = (runs,) if any(row.links for row in comparison.rows) else ()
    columns = [_short(column) for column in table_text.columns(comparison.columns, comparison.metrics)]
    if {column.key for column in columns}.difference(_AT_THE_END) != {column.key for column in COLUMNS}:
        return (*columns, *linked)
    order = (*_KINDS, "quality", *(column.key for column in columns if column.numeric), *_AT_THE_END)
    informative = [column for column in columns if _is_informative(comparison.rows, column)]
    return (*sorted(informative, key=lambda column: order.index(column.key)), *linked)


def _short(column: Column) -> Column:
    return replace(column, header=words.SHORT_HEADERS.get(column.key, column.header))


def _is_informative(rows: Sequence[Row], column: Column) -> bool:
    if column.key in ("team", "model"):
        return len({getattr(row, column.key) for row in rows}) != 1
    return not rows or not column.numeric or any(math.isfinite(row.values.get(column.key, math.nan)) for row in rows)


def _line(comparison: Comparison, row: Row, columns: Sequence[Column]) -> _Line:
    return _Line(is_original(row), tuple(_cell(comparison, row, column, columns) for column in columns))


def _cell(comparison: Comparison, row: Row, column: Column, columns: Sequence[Column]) -> _Cell:
    if column.key == "runs":
        links = tuple(_links(row, comparison.language))
        return _Cell("runs", links=links, is_missing=not links)
    (text,) = table_text.cells(row, (column,), comparison.language, comparison.metrics)
    if column.key == "hardware" and row.hardware:
        return _Cell("hardware", text, title=row.hardware)
    cell = _sorted(_Cell("number" if column.numeric else column.key, text), row, column, comparison.metrics)
    if column.key == "method":
        keys = {shown_column.key for shown_column in columns}
        model_and_team = " · ".join(filter(None, (getattr(row, kind) for kind in ("model", "team") if kind in keys)))
        return replace(cell, text=_breakable(text), value=text, whose=model_and_team, notes=row.notes)
    if cell.is_missing:
        return cell
    if column.key == "quality":
        return replace(cell, parts=tuple(_scores(comparison, row)))
    return replace(cell, parts=(_number(comparison, row, column.key, text),)) if column.numeric else cell


def _number(comparison: Comparison, row: Row, name: str, text: str) -> _Part:
    value, has_ratio, against = text.partition(" (")
    value = value.removesuffix(" MB")  # the header has the unit
    if not has_ratio:
        return _Part(value)
    ends = row.ratio_intervals.get(name)
    return _Part(
        value, f"({against}", _verdict(comparison, row, name), _noise(comparison, row, name, ends, table_text.ratio)
    )


def _scores(comparison: Comparison, row: Row) -> Iterator[_Part]:
    names = table_text.scores(row.values, comparison.metrics)
    own_counts = {name: row.values[key] for name in names if (key := f"{name}_samples") in row.values}
    for name in names:
        text, against = table_text.score_parts(row, name, comparison.language, comparison.metrics)
        difference = f"{name}{DIFFERENCE}"
        low, high = row.values.get(f"{difference}_low"), row.values.get(f"{difference}_high")
        ends = None if low is None or high is None or low == high else (low, high)  # equal samples have no interval
        verdict = _verdict(comparison, row, name) if against else ""
        if name in own_counts:
            text = f"{text}, n={own_counts[name]:.0f}"
        yield _Part(
            text, against, verdict, _noise(comparison, row, difference, ends, table_text.difference) if against else ""
        )
    if COUNT in row.values and (not own_counts or len(own_counts) < len(names)):
        yield _Part(f"n={row.values[COUNT]:.0f}")


def _noise(
    comparison: Comparison, row: Row, name: str, ends: tuple[float, float] | None, format_number: Callable[[float], str]
) -> str:
    """Return the uncertainty of a ratio or difference as text: its interval, or that it is unknown."""
    texts = words.PAGE_SCRIPT[comparison.language]
    if ends is not None:
        return str(texts["interval"]).format(low=format_number(ends[0]), high=format_number(ends[1]))
    return str(texts["noise_unknown"]) if is_told_apart(row, name) is None else ""


def _breakable(text: str) -> Markup:
    """Allow line breaks in a long chain of methods after each part."""
    from markupsafe import Markup

    return Markup("<wbr>").join(visible(part) for part in re.split(r"(?<=[+:,])(?=\S)", text))


def _sorted(cell: _Cell, row: Row, column: Column, metrics: Known) -> _Cell:
    """Return the cell with its sorting key, where that is not its text."""
    if cell.text == MISSING and column.key not in ("team", "model", "method"):
        return replace(cell, is_missing=True)
    if column.key == "pareto":
        return replace(cell, value=str(int(bool(row.dominated))))
    if column.key == "quality":
        first = table_text.scores(row.values, metrics)[0]
        return replace(cell, group=first, value=repr(row.values[first]))
    return replace(cell, value=repr(row.values[column.key])) if column.numeric else cell


def _verdict(comparison: Comparison, row: Row, name: str) -> str:
    """Return whether a ratio, or a score's difference, is better or worse; empty for noise or an unknown direction."""
    greater = comparison.greater_is_better.get(name)
    if name.startswith(f"{GROUP}/"):
        moved = row.values[f"{name}{DIFFERENCE}"]
        is_told, is_more, is_none = is_told_apart(row, f"{name}{DIFFERENCE}"), moved > 0, moved == 0
    else:
        moved = row.ratios[name]
        is_told, is_more = is_told_apart(row, name), moved > 1
        is_none = table_text.ratio(moved) == table_text.ratio(1)
    return "" if greater is None or is_none or not is_told else "better" if is_more == greater else "worse"


def _links(row: Row, language: str) -> Iterator[Link]:
    name = ", ".join(filter(None, (row.team, row.model, row.method)))
    for key, link in row.links.items():
        if _LINK.match(link):
            device = words.DEVICES.get(key, key)
            yield Link(link, device, words.PAGE[language]["run"].format(device=device, name=name))
