"""Reads the comparison tables that people filled in by hand, cell by cell.

Each cell has one result: it is a name, it was read into metrics, it has no number, it could not be read, or its row or
table is ignored. Every ignored part is reported, and ambiguous text is not read.

How numbers are stored, in the units and under the names of measured numbers:

* the unit is the cell's, else the header's. Sizes and memory without a unit are MB, with a remark; a time without a
  unit is not read. Units are those of `written_units`: MB is 2^20 bytes, times are for one sample;
* nothing takes 0 MB or 0 ms: such a number is not read;
* scores are shares of 1 (`80.00%` accuracy is 0.8, `1 - WER` is inverted), BLEU and chrF 0 to 100. A BLEU of 0.6 may be
  either: it is read only where a person states the scale. `Точность` is accuracy. A score given for CPU and GPU is
  stored twice, the second time as `quality/accuracy_gpu`;
* a time for several inputs (`12 s (20 x 30 s)`) is not the time of one call, and is not read;
* a GPU or processor in brackets (`31.9ms (Tesla T4)`) is the hardware of all the table's numbers of that device, unless
  the table names another one.

Each row records its table: rows of two tables are never compared with each other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mlflow_compress.reporting import markdown_tables, readme_notes
from mlflow_compress.reporting.hand_made_rows import ByHand, Import, Origin, Reading
from mlflow_compress.reporting.import_cells import Said, read_cells
from mlflow_compress.reporting.markdown_tables import Line, Table, plain
from mlflow_compress.reporting.table_headings import (
    Heading,
    Kind,
    headings,
    is_comparison,
    is_original,
    is_plainly_original,
)
from mlflow_compress.reporting.written_units import is_missing
from mlflow_compress.words import ORIGINAL

BEGIN, END = "<!-- compress-report: begin -->", "<!-- compress-report: end -->"
UNNAMED = "unnamed"
_AS_HTML = "it is HTML. Write it in Markdown with pipes (|), and repeat a merged cell in each of its rows and columns"

_PLACEHOLDER = re.compile(
    r"(your |the )?model( |_)?name|your model|(название|имя) (вашей )?модели|ваша модель|\.{3}|…|x{3,}|todo|tbd",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Names:
    """The names in a row, and a remark on how they were read."""

    team: str
    model: str
    method: str
    doubt: str = ""


@dataclass(frozen=True)
class _Outcome:
    """The result of reading one row: what to store, or why nothing is stored."""

    line: Line
    row: ByHand | None
    readings: tuple[Reading, ...]
    reason: str = ""


def is_placeholder(model: str) -> bool:
    """Return whether a text is only a placeholder for a model's name: `your model name`."""
    return bool(_PLACEHOLDER.fullmatch(model))


def read(
    text: str, *, team: str, source: str, model: str = "", scales: Mapping[str, str] = MappingProxyType({})
) -> Import:
    """Read all hand-made comparison tables of a Markdown file.

    Args:
        text: the file's text.
        team: the team of the rows, unless a column names it.
        source: the file's name, for messages and tags.
        model: the model of tables without a column of methods: the column Model is then read as the method.
        scales: how a metric's numbers without a per cent sign are meant, by metric name: `share` or `percent`.
    """
    statements = Said(team, model, scales)
    page = markdown_tables.read(text)
    own = _own_lines(text, page.html)
    rows: list[ByHand] = []
    readings: list[Reading] = []
    ignored: list[tuple[int, str, str]] = []
    places: Counter[str] = Counter()
    for table in page.tables:
        columns = headings([cell.text for cell in table.header.cells])
        why = "written by compress-report" if table.header.number in own else _no_comparison(columns)
        if why:
            ignored.append((table.header.number, "table", why))
            readings += [cell for row, line in enumerate(table.rows, 1) for cell in _ignored(line, row, columns, why)]
            continue
        places[table.section] += 1
        headers = tuple(heading.text for heading in columns)
        origin = Origin(source, table.section, places[table.section], headers, statements.team)
        for outcome in _table(table, columns, origin, statements):
            if outcome.row is not None:
                rows.append(outcome.row)
            else:
                ignored.append((outcome.line.number, "row", outcome.reason))
            readings += outcome.readings
    for first, last_line in page.lookalikes:
        ignored.append((first, "lines", f"to {last_line}: not a table on GitHub: rule and header differ in columns"))
    ignored += [(line, "table", _AS_HTML) for line in page.html_tables if line not in own]
    return Import(source, tuple(rows), tuple(readings), tuple(sorted(ignored)))


def _table(table: Table, columns: Sequence[Heading], origin: Origin, statements: Said) -> list[_Outcome]:
    """Read the rows of one table."""
    names = _originals(_named(table, columns, statements))
    earlier: dict[tuple[str, str, str], dict[str, ByHand]] = {}
    outcomes = [
        _row(line, number, columns, row_names, origin, statements)
        for number, (line, row_names) in enumerate(zip(table.rows, names, strict=True), 1)
    ]
    outcomes = [
        replace(outcome, row=row, readings=row.readings) if row is not None else outcome
        for outcome, row in zip(outcomes, _with_hardware([outcome.row for outcome in outcomes]), strict=True)
    ]
    return [
        outcome if outcome.row is None else _once(outcome, outcome.row, earlier.setdefault(_about(outcome.row), {}))
        for outcome in outcomes
    ]


def _about(row: ByHand) -> tuple[str, str, str]:
    return row.team, row.model, row.method


def _named(table: Table, columns: Sequence[Heading], statements: Said) -> list[_Names]:
    """Return the names in each row."""
    places = {heading.kind: index for index, heading in reversed([*enumerate(columns)])}

    def text(line: Line, kind: Kind) -> str:
        index = places.get(kind, len(line.cells))
        if index >= len(line.cells):
            return ""
        cell = line.cells[index]
        return plain(readme_notes.without_marks(cell.raw)) if kind == "method" else cell.text

    models = [text(line, "model") for line in table.rows]
    are_methods = "method" not in places and (bool(statements.model) or any(map(is_plainly_original, models)))
    model, doubt = statements.model or UNNAMED, ""
    if are_methods:
        remedy = f"the model is {model}, as stated" if statements.model else "name the model with --model"
        doubt = f"read as the method, because the table has no column of methods; {remedy}"
    elif "method" not in places:
        doubt = "the table has no column of methods; if this is the method, name the model with --model"
    elif "model" not in places:
        doubt = f"the table has no column of models: {model} is used as the model"
    rows = []
    for line, first in zip(table.rows, models, strict=True):
        team = text(line, "team")
        team_name = statements.team if is_missing(team) else team
        if are_methods:
            rows.append(_Names(team_name, model if not is_missing(first) else "", first, doubt))
        else:
            model_name = first if "model" in places else model
            rows.append(_Names(team_name, model_name, text(line, "method") if "method" in places else UNNAMED, doubt))
    return rows


def _originals(names: Sequence[_Names]) -> list[_Names]:
    """Rename originals to `original`. Where one is named plainly so, a `FP32 (Baseline)` beside it is another row."""
    plain = {(row.team, row.model) for row in names if is_plainly_original(row.method)}
    renamed = []
    for row in names:
        if is_plainly_original(row.method):
            renamed.append(replace(row, method=ORIGINAL))
        elif is_original(row.method) and (row.team, row.model) not in plain:
            why = f"{row.method!r} is read as the original"
            renamed.append(replace(row, method=ORIGINAL, doubt="; ".join(filter(None, (row.doubt, why)))))
        else:
            renamed.append(row)
    return renamed


def _with_hardware(rows: Sequence[ByHand | None]) -> list[ByHand | None]:
    """Add a device's hardware to all rows, where all rows that name it agree: one table, one machine."""
    texts_by_name: dict[str, set[str]] = {}
    for row in rows:
        for name, text in (row.environment if row else {}).items():
            texts_by_name.setdefault(name, set()).add(text)
    common = {name: next(iter(texts)) for name, texts in texts_by_name.items() if len(texts) == 1}
    return [row and replace(row, shared=common) for row in rows]


def _own_lines(text: str, html: Sequence[tuple[int, int, int]]) -> set[int]:
    """Return the lines between our markers."""
    lines: set[int] = set()
    begin = None
    for number, start, end in html:
        mark = text[start:end].strip()
        if mark == BEGIN:
            begin = number
        elif mark == END and begin is not None:
            lines |= set(range(begin, number))
            begin = None
    return lines


def _no_comparison(columns: Sequence[Heading]) -> str:
    return "" if is_comparison(columns) else "not a comparison: it needs a column of models and a known metric"


def _ignored(line: Line, row: int, columns: Sequence[Heading], why: str) -> list[Reading]:
    headers = [heading.text for heading in columns]
    headers += [""] * (len(line.cells) - len(headers))
    return [
        Reading(line.number, row, number, header, cell.raw, "ignored", reason=why)
        for number, (cell, header) in enumerate(zip(line.cells, headers, strict=False), 1)
    ]


def _row(
    line: Line, number: int, columns: Sequence[Heading], names: _Names, origin: Origin, statements: Said
) -> _Outcome:
    """Read one row: what to store, the result for each cell, and the reason where nothing is stored."""
    if why := _no_row(names):
        return _Outcome(line, None, tuple(_ignored(line, number, columns, why)), why)
    cells = read_cells(line, number, columns, statements, names.doubt)
    if any(reading.metrics for reading in cells):
        row = ByHand(names.team, names.model, names.method, origin, tuple(cells))
        return _Outcome(line, row, row.readings)
    why = "it has no number that can be read"
    unread = {cell.column: cell for cell in cells if cell.fate == "unread"}
    remaining = (unread.get(cell.column, cell) for cell in _ignored(line, number, columns, why))
    return _Outcome(line, None, tuple(remaining), why)


def _no_row(names: _Names) -> str:
    if is_missing(names.model):
        return "it names no model"
    if is_placeholder(names.model):
        return f"{names.model!r} is a placeholder"
    return "it names no method" if is_missing(names.method) else ""


def _once(outcome: _Outcome, row: ByHand, earlier: dict[str, ByHand]) -> _Outcome:
    """Return the outcome without a row that is repeated in its table.

    Args:
        outcome: the outcome of the row.
        row: the row.
        earlier: earlier rows of this team, model and method, by digest; this one is added.
    """
    if row.digest in earlier:
        why = f"the same row as in line {earlier[row.digest].line}"
        ignored = tuple(
            reading if reading.fate == "missing" else replace(reading, fate="ignored", metrics={}, reason=why)
            for reading in row.readings
        )
        return replace(outcome, row=None, readings=ignored, reason=why)
    if earlier:
        last_line = next(reversed(earlier.values())).line
        why = f"line {last_line} has this model and method with other cells: a table shows the later row"
        index = max(index for index, reading in enumerate(row.readings) if reading.fate == "name")
        remarked = replace(row.readings[index], reason="; ".join(filter(None, [row.readings[index].reason, why])))
        row = replace(row, readings=(*row.readings[:index], remarked, *row.readings[index + 1 :]))
    earlier[row.digest] = row
    return replace(outcome, row=row, readings=row.readings)
