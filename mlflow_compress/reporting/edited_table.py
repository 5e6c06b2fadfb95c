"""Edits a table that somebody made, cell by cell: only the numbers of measured rows change.

The table keeps its columns, its units, its unknown columns and all rows that are not in the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow_compress import registry, words
from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import markdown_tables, metric_facts, readme_notes
from mlflow_compress.reporting.import_tables import is_placeholder
from mlflow_compress.reporting.markdown_tables import Cell, Line, Page, Table, plain
from mlflow_compress.reporting.table_headings import Heading, Kind, headings, is_original, is_plainly_original
from mlflow_compress.reporting.table_text import MISSING, number
from mlflow_compress.words import ORIGINAL

CYRILLIC = re.compile("[\u0400-\u04ff]")

_BY_HAND = re.compile(rf" \((?:{'|'.join(words.BY_HAND.values())})\)$")
_UNIT_OF = {"time": "ms", "ram": "MB", "vram": "MB"}
_NAMES = ("team", "model", "method")

_Key = tuple[str, str, str]


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as the Markdown renderer writes it."""
    content: bytes = registry.build("renderers", "md").render(comparison)
    return content.decode().rstrip("\n")


def headings_of(table: Table) -> tuple[Heading, ...]:
    """Return what the columns of a table hold."""
    return headings([cell.text for cell in table.header.cells])


def text_at(line: Line, index: int) -> str:
    """Return a cell's text; empty where the row ends before that column."""
    return line.cells[index].text if index < len(line.cells) else ""


def with_teams(text: str, table: Table, comparison: Comparison) -> str:
    """Return the text with a column of teams, where its table lacks one and the comparison has several teams.

    A row belongs to the first team that has its model and method; otherwise its team stays unknown.
    """
    columns = headings_of(table)
    if any(heading.kind == "team" for heading in columns) or len({row.team for row in comparison.rows}) < 2:
        return text
    places = {heading.kind: index for index, heading in enumerate(columns)}
    teams: dict[_Key, str] = {}
    for row, cells in _rendered(comparison, _NAMES):
        key = _key("", cells["model"].text, plain(readme_notes.without_marks(cells["method"].raw)))
        if not row.by_hand:
            teams.setdefault(key, cells["team"].raw)
    keys = _keys_of(table, places)
    word = words.HEADERS["team"]["ru" if any(CYRILLIC.search(heading.text) for heading in columns) else "en"]
    new = [(table.header, word), (table.rule, ":---")]
    new += [(line, teams.get(key, MISSING)) for line, key in zip(table.rows, keys, strict=True)]
    for line, cell in reversed(new):
        is_edged = text.startswith("|", line.start)
        # A line that begins with a dash would become a list item.
        text = f"{text[: line.start]}| {cell} {'' if is_edged else '| '}{text[line.start :]}"
    return text


@dataclass(frozen=True)
class _Wanted:
    """The content that a row of a table should have.

    Attributes:
        key: the team, model and method of the row.
        cells: one for each column; None leaves the cell as it is.
        notes: the footnotes of the row.
        by_hand: whether the numbers were written by hand.
        team: the row's team.
    """

    key: _Key
    cells: tuple[str | None, ...]
    notes: tuple[str, ...]
    by_hand: bool
    team: str


def edited(text: str, page: Page, table: Table, comparison: Comparison) -> str:
    """Return the text with the table's cells changed, missing rows added, and its footnotes listed below it."""
    columns = headings_of(table)
    column_of = {heading.kind: index for index, heading in enumerate(columns)}
    new_rows = _wanted(columns, comparison, has_teams="team" in column_of)
    old_lines = _lines_by_key(table, column_of, {row.key for row in new_rows})
    rewritten = {row.key for row in new_rows if row.key in old_lines and not row.by_hand}
    kept_lines = [line for key, line in old_lines.items() if key not in rewritten]
    notes_block = readme_notes.block_below(text, page, table)
    numbering = _numbering(text, notes_block, column_of["method"], kept_lines)
    table_end = table.rows[-1].end if table.rows else table.end
    model_ends = {key[:2]: line.end for key, line in old_lines.items()}
    edits: list[tuple[int, int, str]] = []
    added: dict[int, list[str]] = {}
    for row in new_rows:
        if row.key in old_lines and row.by_hand:
            continue
        numbers = {numbering.number(note) for note in row.notes}
        if row.key in old_lines:
            edits += _changes(text, old_lines[row.key], row, columns, (numbers, set(numbering.before)))
        else:
            added.setdefault(model_ends.get(row.key[:2], table_end), []).append(_new_line(text, table, row, numbers))
    edits += [
        (position, position, "".join(table.newline + line for line in lines)) for position, lines in added.items()
    ]
    edits += [
        _gone(text, line) for line in table.rows if new_rows and is_placeholder(text_at(line, column_of["model"]))
    ]
    start, end = notes_block or (table.end, table.end)
    listed = readme_notes.block(numbering.lines, table.newline or "\n")
    if listed != text[start:end]:
        edits.append((start, end, listed))
    return _applied(text, edits)


def _applied(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """Return the text after all edits, made from the end; at one place first a cell, then lines, then footnotes."""

    def place(edit: tuple[int, int, str]) -> tuple[int, int, int]:
        start, end, new = edit
        return start, end, 0 if new[:1] not in ("\r", "\n") else 2 if readme_notes.BEGIN in new else 1

    for start, end, new in sorted(edits, key=place, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _gone(text: str, line: Line) -> tuple[int, int, str]:
    """Return the edit that removes a line, with the line ending before it."""
    ending = max(text.rfind("\n", 0, line.start), text.rfind("\r", 0, line.start))
    return ending - text.startswith("\r\n", ending - 1), line.end, ""


def _numbering(
    text: str, notes_block: tuple[int, int] | None, method: int, kept_lines: Sequence[Line]
) -> readme_notes.Numbering:
    """Return the footnotes of the rows that are not rewritten, and the numbers that are used for something else."""
    start, end = notes_block or (0, 0)
    old_notes = readme_notes.listed(text[start:end])
    used = {
        number
        for line in kept_lines
        if method < len(line.cells)
        for number in readme_notes.marks(line.cells[method].raw)
    }
    foreign = frozenset(readme_notes.marks(text[:start] + text[end:])) - old_notes.keys()
    return readme_notes.Numbering(
        {number: note for number, note in old_notes.items() if number in used}, old_notes, foreign
    )


def _keys_of(table: Table, places: Mapping[Kind, int]) -> list[_Key]:
    """Return the keys of a table's rows. `FP32 (Baseline)` is the original where no row is plainly named so."""
    all_names = [
        (
            text_at(line, places["team"]) if "team" in places else "",
            text_at(line, places["model"]),
            plain(readme_notes.without_marks(line.cells[places["method"]].raw))
            if places["method"] < len(line.cells)
            else "",
        )
        for line in table.rows
    ]
    plain_keys = {_key(*names) for names in all_names if is_plainly_original(names[2].partition(" [")[0])}
    loosely = [_key(*names, loosely=True) for names in all_names]
    return [
        loose if loose not in plain_keys and loosely.count(loose) == 1 else _key(*names)
        for names, loose in zip(all_names, loosely, strict=True)
    ]


def _lines_by_key(table: Table, places: Mapping[Kind, int], keys: set[_Key]) -> dict[_Key, Line]:
    by_key: dict[_Key, Line] = {}
    for line, key in zip(table.rows, _keys_of(table, places), strict=True):
        if key in keys and key in by_key:
            raise RecipeError(
                f"Lines {by_key[key].number} and {line.number} are both about {key[1]} {key[2]}. Remove one of them."
            )
        by_key[key] = line
    return by_key


def _key(team: str, model: str, method: str, *, loosely: bool = False) -> _Key:
    method = _BY_HAND.sub("", method)
    first, bracket, setting = method.partition(" [")
    is_it = is_original(first) if loosely else is_plainly_original(first)
    return team, model, f"{ORIGINAL}{bracket}{setting}" if is_it else method


def _rendered(comparison: Comparison, column_keys: Sequence[str]) -> list[tuple[Row, dict[str, Cell]]]:
    """Return the rows of a comparison, each with its cells by column, as the Markdown renderer writes them."""
    if not comparison.rows:
        return []
    (table,) = markdown_tables.read(as_markdown(replace(comparison, columns=tuple(column_keys)))).tables[:1]
    return [
        (row, dict(zip(column_keys, line.cells, strict=True)))
        for row, line in zip(comparison.rows, table.rows, strict=True)
    ]


def _wanted(columns: Sequence[Heading], comparison: Comparison, *, has_teams: bool) -> list[_Wanted]:
    """Return the content of each row of the comparison in a table with these columns."""
    language = "ru" if any(CYRILLIC.search(heading.text) for heading in columns) else "en"
    keys = [heading.kind if heading.kind in _NAMES else _metric(heading) for heading in columns]
    column_keys = (*_NAMES, *dict.fromkeys(key for key in keys if key and key not in _NAMES))
    rows = tuple(
        replace(row, ratios={name: times for name, times in row.ratios.items() if "quality" not in name})
        for row in comparison.rows
    )
    comparison = replace(comparison, rows=rows, language=language)
    notes = readme_notes.listed(as_markdown(comparison))
    new_rows: dict[_Key, _Wanted] = {}
    for row, rendered in _rendered(comparison, column_keys):
        method = readme_notes.without_marks(rendered["method"].raw)
        key = _key(rendered["team"].text if has_teams else "", rendered["model"].text, plain(method))
        if key in new_rows and (row.by_hand or new_rows[key].by_hand):
            if not row.by_hand:
                del new_rows[key]
            else:
                continue  # one of two hand-made tables is enough, and measured numbers are preferred
        elif key in new_rows:
            raise RecipeError(
                f"Both {new_rows[key].team} and {row.team} have {key[1]} {key[2]}, and the table can't show which is "
                "which. Select one team (--team), or fewer rows."
            )
        rendered["method"] = replace(rendered["method"], raw=method)
        cells = tuple(_cell(row, heading, rendered.get(key or "")) for heading, key in zip(columns, keys, strict=True))
        footnotes = tuple(notes[note + 1] for note in row.notes)
        new_rows[key] = _Wanted(key, cells, footnotes, row.by_hand, row.team)
    return list(new_rows.values())


def _metric(heading: Heading) -> str:
    """Return the key of what a column shows; empty for an unknown column."""
    if heading.reason:
        return ""
    if heading.kind == "quality":
        return heading.scores[0].metric if len(heading.scores) == 1 else "quality"
    return heading.metric


def _cell(row: Row, heading: Heading, rendered: Cell | None) -> str | None:
    """Return the text of one cell, in the unit of its column."""
    if rendered is None or rendered.text == MISSING:
        return None
    name = _metric(heading)
    if name not in row.values:  # a name, or all scores together
        return rendered.raw
    value, (head, space, ratio) = row.values[name], rendered.raw.partition(" (")
    if heading.kind == "quality":
        (score,) = heading.scores
        value = 1 - value if score.is_rest else value
        is_percent = heading.is_percent and metric_facts.of(score.metric, {}).scale != "hundred"
        return number(value * 100 if is_percent else value) if score.is_rest or is_percent else rendered.raw
    if heading.unit and (heading.unit.factor != 1 or heading.unit.is_inverse):
        head = number(heading.unit.theirs(value))
        head = f"{head} {heading.unit.text}" if heading.kind == "size" else head
    elif heading.unit is None and heading.kind in _UNIT_OF:
        head = f"{head} {_UNIT_OF[heading.kind]}"
    return f"{head}{space}{ratio}"


def _changes(
    text: str, line: Line, new_row: _Wanted, columns: Sequence[Heading], numbers: tuple[set[int], set[int]]
) -> list[tuple[int, int, str]]:
    """Return the edits that give a line the content it should have. Names stay as they are written.

    Args:
        text: the file.
        line: the line.
        new_row: the content it should have.
        columns: the headings of its table.
        numbers: the numbers of its footnotes after the change, and of all footnotes before it.
    """
    edits = []
    for cell, content, heading in zip(line.cells, new_row.cells, columns, strict=False):
        new = content
        if heading.kind == "method":
            new = readme_notes.with_marks(readme_notes.without_marks(cell.raw, numbers[0] | numbers[1]), numbers[0])
        is_same = new is None or (new == cell.raw if heading.kind == "method" else plain(new) == cell.text)
        if new is None or is_same or heading.kind in ("team", "model"):
            continue
        edits.append((cell.start, cell.end, _fitted(text[cell.start : cell.end], new, text[cell.end : line.end])))
    missing_cells = _marked(new_row, columns, numbers[0])[len(line.cells) :]
    if any(missing_cells):
        end = line.cells[-1].end if line.cells else line.start
        edits.append((end, line.end, "".join(f" | {new or ''}".rstrip() for new in missing_cells) + " |"))
    return edits


def _fitted(old: str, new: str, rest_of_line: str) -> str:
    """Return a cell's new text with the old alignment and, where it is enough, the old width."""
    left_blanks, right_blanks = len(old) - len(old.lstrip()), len(old) - len(old.rstrip())
    if not rest_of_line:  # the last cell of a line without a pipe at its end
        return f" {new}"
    return f" {new} ".rjust(len(old)) if left_blanks > right_blanks and old.strip() else f" {new} ".ljust(len(old))


def _marked(new_row: _Wanted, columns: Sequence[Heading], numbers: set[int]) -> list[str | None]:
    """Return the cells of a row, with the marks of its footnotes after the method."""
    return [
        readme_notes.with_marks(cell or "", numbers) if heading.kind == "method" else cell
        for cell, heading in zip(new_row.cells, columns, strict=True)
    ]


def _new_line(text: str, table: Table, new_row: _Wanted, numbers: set[int]) -> str:
    begin = max(text.rfind("\n", 0, table.header.start), text.rfind("\r", 0, table.header.start)) + 1
    indent = text[begin : table.header.start].removeprefix("\ufeff")
    columns = headings_of(table)
    cells = (
        f" {new if new is not None else '' if heading.reason else MISSING} ".ljust(cell.end - cell.start)
        for new, cell, heading in zip(_marked(new_row, columns, numbers), table.header.cells, columns, strict=True)
    )
    return f"{indent}|{'|'.join(cells)}|"
