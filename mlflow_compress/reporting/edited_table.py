"""Changes a table that somebody made, cell by cell: the numbers of rows that were measured, and nothing else.

Such a table keeps its columns, its units, its unknown columns and all rows that the comparison says nothing of.
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
    """Return what the Markdown renderer makes of a comparison."""
    content: bytes = registry.build("renderers", "md").render(comparison)
    return content.decode().rstrip("\n")


def headings_of(table: Table) -> tuple[Heading, ...]:
    """Return what the columns of a table hold."""
    return headings([cell.text for cell in table.header.cells])


def text_at(line: Line, at: int) -> str:
    """Return a cell's text; empty where the row ends before it."""
    return line.cells[at].text if at < len(line.cells) else ""


def with_teams(text: str, table: Table, comparison: Comparison) -> str:
    """Return a text whose table has a column of teams, where it lacks one and the comparison has rows of several.

    A row belongs to the first team that has its model and method; where none has, nobody knows whose it is.
    """
    above = headings_of(table)
    if any(each.kind == "team" for each in above) or len({row.team for row in comparison.rows}) < 2:
        return text
    at = {each.kind: place for place, each in enumerate(above)}
    teams: dict[_Key, str] = {}
    for row, said in _rendered(comparison, _NAMES):
        key = _key("", said["model"].text, plain(readme_notes.without_marks(said["method"].raw)))
        if not row.by_hand:
            teams.setdefault(key, said["team"].raw)
    keys = _keys_of(table, at)
    word = words.HEADERS["team"]["ru" if any(CYRILLIC.search(each.text) for each in above) else "en"]
    new = [(table.header, word), (table.rule, ":---")]
    new += [(line, teams.get(key, MISSING)) for line, key in zip(table.rows, keys, strict=True)]
    for line, cell in reversed(new):
        is_edged = text.startswith("|", line.start)
        # A line that began with a dash would be an item of a list.
        text = f"{text[: line.start]}| {cell} {'' if is_edged else '| '}{text[line.start :]}"
    return text


@dataclass(frozen=True)
class _Wanted:
    """What a row of a table should say.

    Attributes:
        key: what it is about.
        cells: one for each column; None leaves what is there.
        notes: its footnotes.
        by_hand: whether somebody wrote the numbers down.
        team: whose it is.
    """

    key: _Key
    cells: tuple[str | None, ...]
    notes: tuple[str, ...]
    by_hand: bool
    team: str


def edited(text: str, page: Page, table: Table, comparison: Comparison) -> str:
    """Change the cells of a table, add the rows that it lacks, and list its footnotes below it."""
    above = headings_of(table)
    at = {each.kind: place for place, each in enumerate(above)}
    wanted = _wanted(above, comparison, has_teams="team" in at)
    there = _lines_by_key(table, at, {each.key for each in wanted})
    rewritten = {each.key for each in wanted if each.key in there and not each.by_hand}
    kept = [line for key, line in there.items() if key not in rewritten]
    below = readme_notes.block_below(text, page, table)
    numbering = _numbering(text, below, at["method"], kept)
    last = table.rows[-1].end if table.rows else table.end
    after = {key[:2]: line.end for key, line in there.items()}
    edits: list[tuple[int, int, str]] = []
    added: dict[int, list[str]] = {}
    for each in wanted:
        if each.key in there and each.by_hand:
            continue
        numbers = {numbering.number(note) for note in each.notes}
        if each.key in there:
            edits += _changes(text, there[each.key], each, above, (numbers, set(numbering.before)))
        else:
            added.setdefault(after.get(each.key[:2], last), []).append(_new_line(text, table, each, numbers))
    edits += [(place, place, "".join(table.newline + line for line in lines)) for place, lines in added.items()]
    edits += [_gone(text, line) for line in table.rows if wanted and is_placeholder(text_at(line, at["model"]))]
    start, end = below or (table.end, table.end)
    listed = readme_notes.block(numbering.lines, table.newline or "\n")
    if listed != text[start:end]:
        edits.append((start, end, listed))
    return _applied(text, edits)


def _applied(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """Make all edits, from the end, so that places stay right: at one place a cell, then lines, then footnotes."""

    def place(edit: tuple[int, int, str]) -> tuple[int, int, int]:
        start, end, new = edit
        return start, end, 0 if new[:1] not in ("\r", "\n") else 2 if readme_notes.BEGIN in new else 1

    for start, end, new in sorted(edits, key=place, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _gone(text: str, line: Line) -> tuple[int, int, str]:
    """Return the edit that takes a line away, with the line ending before it."""
    ending = max(text.rfind("\n", 0, line.start), text.rfind("\r", 0, line.start))
    return ending - text.startswith("\r\n", ending - 1), line.end, ""


def _numbering(text: str, below: tuple[int, int] | None, method: int, kept: Sequence[Line]) -> readme_notes.Numbering:
    """Return the footnotes of the rows that are not written anew, and the numbers that mean something else."""
    start, end = below or (0, 0)
    before = readme_notes.listed(text[start:end])
    used = {
        number for line in kept if method < len(line.cells) for number in readme_notes.marks(line.cells[method].raw)
    }
    foreign = frozenset(readme_notes.marks(text[:start] + text[end:])) - before.keys()
    return readme_notes.Numbering({number: note for number, note in before.items() if number in used}, before, foreign)


def _keys_of(table: Table, at: Mapping[Kind, int]) -> list[_Key]:
    """Say what the rows of a table are about. A `FP32 (Baseline)` is the original where no row says so plainly."""
    said = [
        (
            text_at(line, at["team"]) if "team" in at else "",
            text_at(line, at["model"]),
            plain(readme_notes.without_marks(line.cells[at["method"]].raw)) if at["method"] < len(line.cells) else "",
        )
        for line in table.rows
    ]
    plainly = {_key(*names) for names in said if is_plainly_original(names[2].partition(" [")[0])}
    loosely = [_key(*names, loosely=True) for names in said]
    return [
        loose if loose not in plainly and loosely.count(loose) == 1 else _key(*names)
        for names, loose in zip(said, loosely, strict=True)
    ]


def _lines_by_key(table: Table, at: Mapping[Kind, int], wanted: set[_Key]) -> dict[_Key, Line]:
    there: dict[_Key, Line] = {}
    for line, key in zip(table.rows, _keys_of(table, at), strict=True):
        if key in wanted and key in there:
            raise RecipeError(
                f"Lines {there[key].number} and {line.number} are both about {key[1]} {key[2]}. Remove one of them."
            )
        there[key] = line
    return there


def _key(team: str, model: str, method: str, *, loosely: bool = False) -> _Key:
    method = _BY_HAND.sub("", method)
    first, bracket, setting = method.partition(" [")
    is_it = is_original(first) if loosely else is_plainly_original(first)
    return team, model, f"{ORIGINAL}{bracket}{setting}" if is_it else method


def _rendered(comparison: Comparison, shown: Sequence[str]) -> list[tuple[Row, dict[str, Cell]]]:
    """Return the rows of a comparison, each with its cells as the Markdown renderer writes them, by column."""
    if not comparison.rows:
        return []
    (table,) = markdown_tables.read(as_markdown(replace(comparison, columns=tuple(shown)))).tables[:1]
    return [
        (row, dict(zip(shown, line.cells, strict=True))) for row, line in zip(comparison.rows, table.rows, strict=True)
    ]


def _wanted(above: Sequence[Heading], comparison: Comparison, *, has_teams: bool) -> list[_Wanted]:
    """Say what each row of the comparison is in a table with these columns."""
    language = "ru" if any(CYRILLIC.search(each.text) for each in above) else "en"
    keys = [each.kind if each.kind in _NAMES else _metric(each) for each in above]
    shown = (*_NAMES, *dict.fromkeys(key for key in keys if key and key not in _NAMES))
    rows = tuple(
        replace(row, ratios={name: times for name, times in row.ratios.items() if "quality" not in name})
        for row in comparison.rows
    )
    comparison = replace(comparison, rows=rows, language=language)
    notes = readme_notes.listed(as_markdown(comparison))
    wanted: dict[_Key, _Wanted] = {}
    for row, said in _rendered(comparison, shown):
        method = readme_notes.without_marks(said["method"].raw)
        key = _key(said["team"].text if has_teams else "", said["model"].text, plain(method))
        if key in wanted and (row.by_hand or wanted[key].by_hand):
            if not row.by_hand:
                del wanted[key]
            else:
                continue  # of two hand-made tables one is enough, and what was measured is better
        elif key in wanted:
            raise RecipeError(
                f"Both {wanted[key].team} and {row.team} have {key[1]} {key[2]}, and the table says no more of a row. "
                "Name one team, or choose fewer rows."
            )
        said["method"] = replace(said["method"], raw=method)
        cells = tuple(_cell(row, heading, said.get(key or "")) for heading, key in zip(above, keys, strict=True))
        footnotes = tuple(notes[note + 1] for note in row.notes)
        wanted[key] = _Wanted(key, cells, footnotes, row.by_hand, row.team)
    return list(wanted.values())


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
    if heading.unit and (heading.unit.factor != 1 or heading.unit.is_inverse):
        head = number(heading.unit.theirs(value))
        head = f"{head} {heading.unit.text}" if heading.kind == "size" else head
    elif heading.unit is None and heading.kind in _UNIT_OF:
        head = f"{head} {_UNIT_OF[heading.kind]}"
    return f"{head}{space}{ratio}"


def _changes(
    text: str, line: Line, wanted: _Wanted, above: Sequence[Heading], numbers: tuple[set[int], set[int]]
) -> list[tuple[int, int, str]]:
    """Return the edits that make a line say what it should. Names stay as they are written.

    Args:
        text: the file.
        line: the line.
        wanted: what it should say.
        above: its columns.
        numbers: of its footnotes, as they should be; and of all that there were before.
    """
    edits = []
    for cell, said, heading in zip(line.cells, wanted.cells, above, strict=False):
        new = said
        if heading.kind == "method":
            new = readme_notes.with_marks(readme_notes.without_marks(cell.raw, numbers[0] | numbers[1]), numbers[0])
        is_same = new is None or (new == cell.raw if heading.kind == "method" else plain(new) == cell.text)
        if new is None or is_same or heading.kind in ("team", "model"):
            continue
        edits.append((cell.start, cell.end, _fitted(text[cell.start : cell.end], new, text[cell.end : line.end])))
    lacking = _marked(wanted, above, numbers[0])[len(line.cells) :]
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


def _marked(wanted: _Wanted, above: Sequence[Heading], numbers: set[int]) -> list[str | None]:
    """Return the cells of a row, with its footnotes behind the method."""
    return [
        readme_notes.with_marks(cell or "", numbers) if heading.kind == "method" else cell
        for cell, heading in zip(wanted.cells, above, strict=True)
    ]


def _new_line(text: str, table: Table, wanted: _Wanted, numbers: set[int]) -> str:
    begin = max(text.rfind("\n", 0, table.header.start), text.rfind("\r", 0, table.header.start)) + 1
    indent = text[begin : table.header.start].removeprefix("\ufeff")
    above = headings_of(table)
    cells = (
        f" {new if new is not None else '' if heading.reason else MISSING} ".ljust(cell.end - cell.start)
        for new, cell, heading in zip(_marked(wanted, above, numbers), table.header.cells, above, strict=True)
    )
    return f"{indent}|{'|'.join(cells)}|"
