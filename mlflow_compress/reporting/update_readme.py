"""Brings the comparison table of a README up to date, and touches nothing else of it.

Where the table stands is said by two comments on lines of their own; what is between them belongs to this tool:

    <!-- compress-report: begin -->
    <!-- compress-report: end -->

Without them it is the one table whose header names models, methods and a number that is known here, as the course's
does. Such a table keeps its columns, its units, its unknown columns and all rows that the comparison says nothing of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from mlflow_compress import registry, words
from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import markdown_tables, metric_facts
from mlflow_compress.reporting.import_tables import BEGIN, END
from mlflow_compress.reporting.markdown_tables import Cell, Line, Page, Table, plain
from mlflow_compress.reporting.table_headings import Heading, headings, is_comparison, is_original
from mlflow_compress.reporting.table_text import COLUMNS, MISSING, columns, natural, number
from mlflow_compress.words import ORIGINAL

_NOTE = re.compile(r"(?<!\\)\[(\d+)\]")
_NOTES_AT_END = re.compile(r"(?:\s*(?<!\\)\[\d+\])+\s*$")
_NOTE_LINE = re.compile(r"^- \[(\d+)\] (.*)$", re.MULTILINE)
_BY_HAND = re.compile(rf" \((?:{'|'.join(words.BY_HAND.values())})\)$")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_UNIT_OF = {"time": "ms", "ram": "MB", "vram": "MB"}

_Key = tuple[str, str, str]


def update(text: str, comparison: Comparison, *, teams: Sequence[str] = ()) -> str:
    """Return a README with its comparison table brought up to date.

    Between the markers stands what the Markdown renderer gives. The rows of other teams than `teams` stay there as they
    are, with the notes that they refer to, and where there are any, the columns stay, too.

    A table without markers is changed cell by cell. A row is found by its model and method, and by its team where there
    is a column of teams; without one, the rows with a model and method that the comparison has are taken for those of
    `teams`. Its numbers are written in the units of the header; a cell that the comparison has no number for stays.
    Rows that are not there yet come after the last one of their model. Rows that were copied by hand into the store
    never replace what is there.

    Args:
        text: the file's text, with its line endings and byte order mark as they are.
        comparison: what the table should say.
        teams: whose rows may change; empty for all that the comparison has.

    Raises:
        RecipeError: no table fits, or several, or it can't be told which row is whose.
    """
    if teams:
        comparison = replace(
            comparison,
            rows=tuple(row for row in comparison.rows if row.team in teams),
            failures=tuple(each for each in comparison.failures if each.team in teams),
        )
    page = markdown_tables.read(text)
    marked = _between_markers(text, page)
    if marked is None:
        return _edited(text, _fitting(page), comparison)
    start, end, newline = marked
    kept = next((table for table in page.tables if start <= table.header.start < end), None) if teams else None
    block = _render(comparison) if kept is None else _merged(text, kept, text[kept.end : end], comparison, teams)
    return f"{text[:start]}{newline}{block.replace(chr(10), newline)}{newline}{newline}{text[end:]}"


def _between_markers(text: str, page: Page) -> tuple[int, int, str] | None:
    """Return where what stands between the markers begins and ends, and the line ending there; None without markers."""
    begins, ends = (
        [(number, start, end) for number, start, end in page.html if text[start:end].strip() == mark]
        for mark in (BEGIN, END)
    )
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise RecipeError(
            f"The markers must stand once each, the first before the second: {BEGIN} is in {_lines(begins)}, "
            f"{END} in {_lines(ends)}."
        )
    after = re.compile(r"\r\n|\r|\n").match(text, begins[0][2])
    assert after  # the other marker is on a later line
    return after.end(), ends[0][1], after.group()


def _lines(found: Sequence[tuple[int, ...]]) -> str:
    if not found:
        return "no line"
    return f"line{'s' if len(found) > 1 else ''} {', '.join(str(each[0]) for each in found)}"


def _fitting(page: Page) -> Table:
    found = []
    for table in page.tables:
        above = _headings(table)
        if {"model", "method"} <= {each.kind for each in above} and is_comparison(above) and not table.is_nested:
            found.append(table)
    here = f"Put {BEGIN} and {END}, each on a line of its own, "
    if not found:
        raise RecipeError(
            "There is no table with columns of models, methods and a size, time, memory or quality. "
            f"{here}where it should stand."
        )
    if len(found) > 1:
        numbers = _lines([(table.header.number,) for table in found])
        raise RecipeError(f"Several tables could be the one to update: those in {numbers}. {here}around the right one.")
    return found[0]


def _render(comparison: Comparison) -> str:
    content: bytes = registry.build("renderers", "md").render(comparison)
    return content.decode().rstrip("\n")


def _merged(text: str, old: Table, below: str, comparison: Comparison, teams: Sequence[str]) -> str:
    """Render a comparison, and put the rows of other teams that stand in the old table among its rows."""
    team = next((at for at, each in enumerate(_headings(old)) if each.kind == "team"), None)
    others = [line for line in old.rows if _text(line, team) not in teams] if team is not None else []
    if team is None or not others:
        return _render(comparison)
    rendered = _render(replace(comparison, columns=_same_columns(old, comparison)))
    (new,) = markdown_tables.read(rendered).tables[:1]
    lines = [(_text(line, team), text[line.start : line.end]) for line in others]
    used = {int(number) for _, line in lines for number in _NOTE.findall(line)}
    notes = {int(at): note for at, note in _NOTE_LINE.findall(below.replace("\r", "")) if int(at) in used}
    tail = rendered[new.end :]
    places: dict[str, str] = {}
    for at, note in _NOTE_LINE.findall(tail):
        place = next((place for place, said in notes.items() if said == note), None)
        place = place or next(place for place in range(1, len(notes) + 2) if place not in notes)
        notes[place], places[at] = note, f"[{place}]"
    own = ((line, rendered[line.start : line.end]) for line in new.rows)
    lines += [(_text(line, team), _NOTE.sub(lambda it: places.get(it[1], it[0]), said)) for line, said in own]
    lines.sort(key=lambda line: natural(line[0]))
    tail = re.sub(r"\A\n\n- \[\d+\] .*(?:\n- \[\d+\] .*)*", "", tail)
    listed = "\n".join(f"- [{place}] {note}" for place, note in sorted(notes.items()))
    table = "\n".join([*rendered.split("\n")[:2], *(line for _, line in lines)])
    return f"{table}\n\n{listed}{tail}" if listed else f"{table}{tail}"


def _same_columns(old: Table, comparison: Comparison) -> tuple[str, ...]:
    """Return the keys of the columns of a table that this tool wrote."""
    metrics = sorted({name for row in comparison.rows for name in row.values})
    wanted = tuple(dict.fromkeys([*(each.key for each in COLUMNS), "hardware", "pareto", *metrics]))
    known = columns(wanted, comparison.metrics)
    keys = {each.header["en"]: each.key for each in reversed(known) if each.key in metrics}  # as 0.1 wrote all scores
    keys |= {each.header[comparison.language]: each.key for each in reversed(known)}
    unknown = [cell.text for cell in old.header.cells if cell.text not in keys]
    if unknown:
        raise RecipeError(
            f"The table in line {old.header.number} has rows of other teams, and columns that can't be filled now: "
            f"{', '.join(unknown)}. Choose its language and what it was made with, or write the rows of all teams."
        )
    return tuple(keys[cell.text] for cell in old.header.cells)


def _headings(table: Table) -> tuple[Heading, ...]:
    return headings([cell.text for cell in table.header.cells])


def _text(line: Line, at: int) -> str:
    return line.cells[at].text if at < len(line.cells) else ""


@dataclass(frozen=True)
class _Wanted:
    """What a row of a table should say: its key, and a cell for each column; None leaves what is there."""

    key: _Key
    cells: tuple[str | None, ...]
    by_hand: bool
    team: str


def _edited(text: str, table: Table, comparison: Comparison) -> str:
    """Change the cells of a table, and add the rows that it lacks."""
    above = _headings(table)
    at = {each.kind: place for place, each in enumerate(above)}
    there: dict[_Key, Line] = {}
    last = table.rows[-1].end if table.rows else table.end
    wanted = _wanted(above, comparison, has_teams="team" in at)
    keys = {each.key for each in wanted}
    after: dict[tuple[str, str], int] = {}
    for line in table.rows:
        method = _NOTES_AT_END.sub("", line.cells[at["method"]].raw) if at["method"] < len(line.cells) else ""
        key = _key(_text(line, at["team"]) if "team" in at else "", _text(line, at["model"]), plain(method))
        if key in keys and key in there:
            raise RecipeError(
                f"Lines {there[key].number} and {line.number} are both about {key[1]} {key[2]}. Remove one of them."
            )
        there[key] = line
        after[key[:2]] = line.end
    edits: list[tuple[int, int, str]] = []
    added: dict[int, list[str]] = {}
    for each in wanted:
        if each.key in there:
            edits += [] if each.by_hand else _changes(text, there[each.key], each, above)
        else:
            added.setdefault(after.get(each.key[:2], last), []).append(_new_line(text, table, each))
    edits += [(place, place, "".join(table.newline + line for line in lines)) for place, lines in added.items()]
    # From the end, so that places stay right; a line that is added comes after what its neighbour's end gets.
    for start, end, new in sorted(edits, key=lambda edit: (*edit[:2], edit[2][:1] in "\r\n"), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _key(team: str, model: str, method: str) -> _Key:
    method = _BY_HAND.sub("", method)
    first, bracket, setting = method.partition(" [")
    return team, model, f"{ORIGINAL}{bracket}{setting}" if is_original(first) else method


def _wanted(above: Sequence[Heading], comparison: Comparison, *, has_teams: bool) -> list[_Wanted]:
    """Say what each row of the comparison is in a table with these columns."""
    language = "ru" if any(_CYRILLIC.search(each.text) for each in above) else "en"
    names = {"team", "model", "method"}
    keys = [each.kind if each.kind in names else _metric(each) for each in above]
    shown = ("team", "model", "method", *dict.fromkeys(key for key in keys if key and key not in names))
    rows = [
        replace(row, notes=(), ratios={name: times for name, times in row.ratios.items() if "quality" not in name})
        for row in comparison.rows
    ]
    rendered = _render(replace(comparison, rows=tuple(rows), language=language, columns=shown, footnotes=()))
    (table,) = markdown_tables.read(rendered).tables[:1]
    found: dict[_Key, _Wanted] = {}
    for row, line in zip(rows, table.rows, strict=True):
        said = dict(zip(shown, line.cells, strict=True))
        key = _key(said["team"].text if has_teams else "", said["model"].text, said["method"].text)
        if key in found:
            raise RecipeError(
                f"Both {found[key].team} and {row.team} have {key[1]} {key[2]}, and the table has no column of teams. "
                "Name one team, or give the table a column Team."
            )
        cells = tuple(_cell(row, heading, said.get(key or "")) for heading, key in zip(above, keys, strict=True))
        found[key] = _Wanted(key, cells, row.by_hand, row.team)
    return list(found.values())


def _metric(heading: Heading) -> str:
    """Return the key of what a column shows; empty where it is none of ours."""
    if heading.reason:
        return ""
    if heading.kind == "quality":
        return heading.scores[0].metric if len(heading.scores) == 1 else "quality"
    return heading.metric


def _cell(row: Row, heading: Heading, rendered: Cell | None) -> str | None:
    """Write one cell, in the unit of its column."""
    if rendered is None or rendered.text == MISSING:
        return None
    name = _metric(heading)
    if name not in row.values:  # names, and all scores together
        return rendered.raw
    value, (head, space, ratio) = row.values[name], rendered.raw.partition(" (")
    if heading.kind == "quality":
        (score,) = heading.scores
        value = 1 - value if score.is_rest else value
        is_percent = heading.is_percent and metric_facts.of(score.metric, {}).scale != "hundred"
        return number(value * 100 if is_percent else value) if score.is_rest or is_percent else rendered.raw
    factor = heading.unit.factor if heading.unit else Decimal(1)
    if factor != 1:
        head = number(value / float(factor))
        head = f"{head} {heading.unit.text}" if heading.unit and heading.kind == "size" else head
    elif heading.unit is None and heading.kind in _UNIT_OF:
        head = f"{head} {_UNIT_OF[heading.kind]}"
    return f"{head}{space}{ratio}"


def _changes(text: str, line: Line, wanted: _Wanted, above: Sequence[Heading]) -> list[tuple[int, int, str]]:
    """Return the edits that make a line say what it should. Names stay as they are written."""
    edits = []
    for cell, new, heading in zip(line.cells, wanted.cells, above, strict=False):
        if new is None or heading.kind in ("team", "model", "method") or plain(new) == cell.text:
            continue
        edits.append((cell.start, cell.end, _fitted(text[cell.start : cell.end], new, text[cell.end : line.end])))
    lacking = wanted.cells[len(line.cells) :]
    if any(lacking):
        end = line.cells[-1].end if line.cells else line.start
        edits.append((end, line.end, "".join(f" | {new or ''}".rstrip() for new in lacking) + " |"))
    return edits


def _fitted(old: str, new: str, rest: str) -> str:
    """Put a text into a cell, on the side where it stood and in the width that it had, where that is enough."""
    before, after = len(old) - len(old.lstrip()), len(old) - len(old.rstrip())
    if not rest:  # the last cell of a line without a pipe at its end
        return f" {new}"
    return f" {new} ".rjust(len(old)) if before > after and old.strip() else f" {new} ".ljust(len(old))


def _new_line(text: str, table: Table, wanted: _Wanted) -> str:
    begin = max(text.rfind("\n", 0, table.header.start), text.rfind("\r", 0, table.header.start)) + 1
    indent = text[begin : table.header.start].removeprefix("\ufeff")
    cells = (
        f" {new if new is not None else '' if heading.reason else MISSING} ".ljust(cell.end - cell.start)
        for new, cell, heading in zip(wanted.cells, table.header.cells, _headings(table), strict=True)
    )
    return f"{indent}|{'|'.join(cells)}|"
