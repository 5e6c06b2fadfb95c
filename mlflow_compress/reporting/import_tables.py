"""Reads the comparison tables that people filled in by hand, cell by cell.

Each cell has one fate: it is a name, it was read into metrics, it says that there is no number, it could not be read,
or its row or table was passed over. Nothing is dropped without a word, and what could mean two things is not read.

How numbers are stored, which are in the units and under the names that measured ones have:

* the unit is the cell's, else the header's; sizes and memory without either are MB, and that is remarked upon; a time
  without either is not read. Units are those of `written_units`: MB is 2^20 bytes, times are of one sample;
* nothing takes 0 MB or 0 ms: such a number is not read;
* scores are shares of 1 (`80.00%` accuracy is 0.8, `1 - WER` is turned round), BLEU and chrF 0 to 100. A BLEU of 0.6
  may be either: it is read where a person says which. `Точность` is accuracy. A score that is given for CPU and GPU is
  stored twice, the second one as `quality/accuracy_gpu`;
* a time of several inputs (`12 s (20 x 30 s)`) is not that of one call, and not read;
* a GPU or processor in brackets (`31.9ms (Tesla T4)`) is what the table's numbers of that device were measured on, if
  it names no other one.

Each row knows the table it stands in: rows of two tables are never compared with each other.
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
_AS_HTML = (
    "written as HTML: write it in Markdown, with pipes (|), and a merged cell once for each of its rows and columns"
)

_PLACEHOLDER = re.compile(
    r"(your |the )?model( |_)?name|your model|(название|имя) (вашей )?модели|ваша модель|\.{3}|…|x{3,}|todo|tbd",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Names:
    """Who, what and how a row is about, and what to know about that."""

    team: str
    model: str
    method: str
    doubt: str = ""


@dataclass(frozen=True)
class _Outcome:
    """What became of one row: what to store of it, or why nothing is stored."""

    line: Line
    row: ByHand | None
    readings: tuple[Reading, ...]
    reason: str = ""


def is_placeholder(model: str) -> bool:
    """Return whether a text only keeps the place of a model's name: `your model name`."""
    return bool(_PLACEHOLDER.fullmatch(model))


def read(
    text: str, *, team: str, source: str, model: str = "", scales: Mapping[str, str] = MappingProxyType({})
) -> Import:
    """Read all hand-made comparison tables of a Markdown file.

    Args:
        text: the file.
        team: whose rows they are, unless a column says so.
        source: the file's name, for messages and tags.
        model: the model of tables that have no column of methods: what stands under Model is taken as the method.
        scales: how a metric's numbers without a per cent sign are meant, by its name: `share` or `percent`.
    """
    said = Said(team, model, scales)
    page = markdown_tables.read(text)
    own = _own_lines(text, page.html)
    rows: list[ByHand] = []
    readings: list[Reading] = []
    passed: list[tuple[int, str, str]] = []
    places: Counter[str] = Counter()
    for table in page.tables:
        columns = headings([cell.text for cell in table.header.cells])
        why = "written by compress-report" if table.header.number in own else _no_comparison(columns)
        if why:
            passed.append((table.header.number, "table", why))
            readings += [each for at, line in enumerate(table.rows, 1) for each in _passed(line, at, columns, why)]
            continue
        places[table.section] += 1
        headers = tuple(each.text for each in columns)
        origin = Origin(source, table.section, places[table.section], headers, said.team)
        for outcome in _table(table, columns, origin, said):
            if outcome.row is not None:
                rows.append(outcome.row)
            else:
                passed.append((outcome.line.number, "row", outcome.reason))
            readings += outcome.readings
    for first, last in page.lookalikes:
        passed.append((first, "lines", f"to {last}: no table for GitHub: the rule has other columns than the header"))
    passed += [(line, "table", _AS_HTML) for line in page.html_tables if line not in own]
    return Import(source, tuple(rows), tuple(readings), tuple(sorted(passed)))


def _table(table: Table, columns: Sequence[Heading], origin: Origin, said: Said) -> list[_Outcome]:
    """Read the rows of one table."""
    names = _originals(_named(table, columns, said))
    earlier: dict[tuple[str, str, str], dict[str, ByHand]] = {}
    outcomes = [
        _row(line, at, columns, named, origin, said)
        for at, (line, named) in enumerate(zip(table.rows, names, strict=True), 1)
    ]
    outcomes = [
        replace(each, row=row, readings=row.readings) if (row := known) is not None else each
        for each, known in zip(outcomes, _with_hardware([each.row for each in outcomes]), strict=True)
    ]
    return [
        each if each.row is None else _once(each, each.row, earlier.setdefault(_about(each.row), {}))
        for each in outcomes
    ]


def _about(row: ByHand) -> tuple[str, str, str]:
    return row.team, row.model, row.method


def _named(table: Table, columns: Sequence[Heading], said: Said) -> list[_Names]:
    """Say what each row is about."""
    places = {each.kind: at for at, each in reversed([*enumerate(columns)])}

    def text(line: Line, kind: Kind) -> str:
        at = places.get(kind, len(line.cells))
        if at >= len(line.cells):
            return ""
        cell = line.cells[at]
        return plain(readme_notes.without_marks(cell.raw)) if kind == "method" else cell.text

    models = [text(line, "model") for line in table.rows]
    are_methods = "method" not in places and (bool(said.model) or any(map(is_plainly_original, models)))
    model, doubt = said.model or UNNAMED, ""
    if are_methods:
        whose = f"the model is {model}, as was said" if said.model else "name the model with --model"
        doubt = f"taken as the method, since the table has no column of methods; {whose}"
    elif "method" not in places:
        doubt = "the table has no column of methods; this may be one: name the model (--model) to read it as such"
    elif "model" not in places:
        doubt = f"the table has no column of models: the model is taken as {model}"
    rows = []
    for line, first in zip(table.rows, models, strict=True):
        team = text(line, "team")
        whose = said.team if is_missing(team) else team
        if are_methods:
            rows.append(_Names(whose, model if not is_missing(first) else "", first, doubt))
        else:
            named = first if "model" in places else model
            rows.append(_Names(whose, named, text(line, "method") if "method" in places else UNNAMED, doubt))
    return rows


def _originals(names: Sequence[_Names]) -> list[_Names]:
    """Call the originals so. Where one is called that plainly, a `FP32 (Baseline)` beside it is another row."""
    plain = {(each.team, each.model) for each in names if is_plainly_original(each.method)}
    called = []
    for each in names:
        if is_plainly_original(each.method):
            called.append(replace(each, method=ORIGINAL))
        elif is_original(each.method) and (each.team, each.model) not in plain:
            why = f"{each.method!r} is taken as the original"
            called.append(replace(each, method=ORIGINAL, doubt="; ".join(filter(None, (each.doubt, why)))))
        else:
            called.append(each)
    return called


def _with_hardware(rows: Sequence[ByHand | None]) -> list[ByHand | None]:
    """Give a device's hardware to all rows, where those that name any all name the same: one table, one machine."""
    named: dict[str, set[str]] = {}
    for row in rows:
        for name, text in (row.environment if row else {}).items():
            named.setdefault(name, set()).add(text)
    common = {name: next(iter(texts)) for name, texts in named.items() if len(texts) == 1}
    return [row and replace(row, shared=common) for row in rows]


def _own_lines(text: str, html: Sequence[tuple[int, int, int]]) -> set[int]:
    """Return the lines between our markers."""
    lines: set[int] = set()
    begin = None
    for at, start, end in html:
        mark = text[start:end].strip()
        if mark == BEGIN:
            begin = at
        elif mark == END and begin is not None:
            lines |= set(range(begin, at))
            begin = None
    return lines


def _no_comparison(found: Sequence[Heading]) -> str:
    return "" if is_comparison(found) else "no comparison: it needs a column of models, and one of numbers known here"


def _passed(line: Line, row: int, found: Sequence[Heading], why: str) -> list[Reading]:
    headers = [each.text for each in found]
    return [
        Reading(
            line.number, row, at, headers[at - 1] if at <= len(headers) else "", cell.raw, "passed over", reason=why
        )
        for at, cell in enumerate(line.cells, 1)
    ]


def _row(line: Line, at: int, columns: Sequence[Heading], names: _Names, origin: Origin, said: Said) -> _Outcome:
    """Read one row: what to store, what became of its cells, and why nothing is stored where that is so."""
    if why := _no_row(names):
        return _Outcome(line, None, tuple(_passed(line, at, columns, why)), why)
    cells = read_cells(line, at, columns, said, names.doubt)
    if any(reading.metrics for reading in cells):
        row = ByHand(names.team, names.model, names.method, origin, tuple(cells))
        return _Outcome(line, row, row.readings)
    why = "it holds no number that could be read"
    unread = {each.column: each for each in cells if each.fate == "unread"}
    passed = (unread.get(each.column, each) for each in _passed(line, at, columns, why))
    return _Outcome(line, None, tuple(passed), why)


def _no_row(names: _Names) -> str:
    if is_missing(names.model):
        return "it names no model"
    if is_placeholder(names.model):
        return f"{names.model!r} is a placeholder"
    return "it names no method" if is_missing(names.method) else ""


def _once(outcome: _Outcome, row: ByHand, same: dict[str, ByHand]) -> _Outcome:
    """See whether a row was there before in its table: the same again is not stored twice.

    Args:
        outcome: of the row.
        row: the row.
        same: the rows before it of this team, model and method, by their digests; this one is added.
    """
    if row.digest in same:
        why = f"the same row as in line {same[row.digest].line}"
        passed = tuple(
            each if each.fate == "missing" else replace(each, fate="passed over", metrics={}, reason=why)
            for each in row.readings
        )
        return replace(outcome, row=None, readings=passed, reason=why)
    if same:
        last = next(reversed(same.values())).line
        why = f"line {last} has this model and method with other cells: a table shows the later"
        at = max(at for at, each in enumerate(row.readings) if each.fate == "name")
        told = replace(row.readings[at], reason="; ".join(filter(None, [row.readings[at].reason, why])))
        row = replace(row, readings=(*row.readings[:at], told, *row.readings[at + 1 :]))
    same[row.digest] = row
    return replace(outcome, row=row, readings=row.readings)
