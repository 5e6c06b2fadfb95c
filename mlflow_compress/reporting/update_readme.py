"""Updates the comparison table of a README, and changes nothing else in it.

Two comments on separate lines mark the place of the table; the text between them belongs to this tool:

    <!-- compress-report: begin -->
    <!-- compress-report: end -->

Without them it is the one table whose header has models, methods and a known metric, like the course's table: see
`edited_table`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison
from mlflow_compress.reporting import markdown_tables, readme_notes
from mlflow_compress.reporting.edited_table import CYRILLIC, as_markdown, edited, headings_of, text_at, with_teams
from mlflow_compress.reporting.import_tables import BEGIN, END
from mlflow_compress.reporting.markdown_tables import Page, Table
from mlflow_compress.reporting.table_headings import is_comparison
from mlflow_compress.reporting.table_text import COLUMNS, columns, natural


def language_of(text: str) -> str:
    """Return the language of the table to update: `ru` where its header has Russian words."""
    page = markdown_tables.read(text)
    try:
        marked = _between_markers(text, page)
        tables = [_fitting(page)] if marked is None else _inside(page, marked)
    except RecipeError:
        return "en"
    return "ru" if any(CYRILLIC.search(cell.text) for table in tables[:1] for cell in table.header.cells) else "en"


def update(text: str, comparison: Comparison, *, teams: Sequence[str] = ()) -> str:
    """Return a README with its comparison table updated.

    The text between the markers comes from the Markdown renderer. Rows of teams not in `teams` stay as they are, with
    the notes that they refer to; where there are such rows, the columns stay too.

    A table without markers is changed cell by cell. A row is found by its model and method, and by its team where there
    is a column of teams. That column is added where the comparison has rows of several teams. Without it, rows with a
    model and method of the comparison belong to `teams`. Numbers are written in the units of the header; a cell without
    a number in the comparison stays. New rows come after the last row of their model; placeholder rows
    (`your model name`) are removed. Footnotes are listed below the table. Rows in the store that were copied by hand
    never replace existing text.

    Args:
        text: the file's text, with its line endings and byte order mark.
        comparison: the new content of the table.
        teams: the teams whose rows may change; empty for all teams of the comparison.

    Raises:
        RecipeError: no table fits, or several do, or it is unclear which row belongs to which team.
    """
    if teams:
        comparison = replace(
            comparison,
            rows=tuple(row for row in comparison.rows if row.team in teams),
            failures=tuple(failure for failure in comparison.failures if failure.team in teams),
        )
    page = markdown_tables.read(text)
    marked = _between_markers(text, page)
    if marked is None:
        text = with_teams(text, _fitting(page), comparison)
        page = markdown_tables.read(text)
        return edited(text, page, _fitting(page), comparison)
    start, end, newline = marked
    old_table = next(iter(_inside(page, marked)), None) if teams else None
    block = (
        as_markdown(comparison)
        if old_table is None
        else _merged(text, old_table, text[old_table.end : end], comparison, teams)
    )
    return f"{text[:start]}{newline}{block.replace(chr(10), newline)}{newline}{newline}{text[end:]}"


def _inside(page: Page, marked: tuple[int, int, str]) -> list[Table]:
    return [table for table in page.tables if marked[0] <= table.header.start < marked[1]]


def _between_markers(text: str, page: Page) -> tuple[int, int, str] | None:
    """Return the span between the markers, and the line ending there; None without markers."""
    begins, ends = (
        [(number, start, end) for number, start, end in page.html if text[start:end].strip() == mark]
        for mark in (BEGIN, END)
    )
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise RecipeError(
            f"Each marker must occur once, the first before the second: {BEGIN} is in {_lines(begins)}, "
            f"{END} in {_lines(ends)}."
        )
    line_end = re.compile(r"\r\n|\r|\n").match(text, begins[0][2])
    assert line_end  # the other marker is on a later line
    return line_end.end(), ends[0][1], line_end.group()


def _lines(places: Sequence[tuple[int, ...]]) -> str:
    if not places:
        return "no line"
    return f"line{'s' if len(places) > 1 else ''} {', '.join(str(span[0]) for span in places)}"


def _fitting(page: Page) -> Table:
    fitting = []
    for table in page.tables:
        columns_here = headings_of(table)
        kinds = {heading.kind for heading in columns_here}
        if {"model", "method"} <= kinds and is_comparison(columns_here) and not table.is_nested:
            fitting.append(table)
    advice = f"Put {BEGIN} and {END}, each on a separate line, "
    if not fitting:
        raise RecipeError(
            "There is no table with columns for models, methods and a size, time, memory or quality. "
            f"{advice}where the table should be."
        )
    if len(fitting) > 1:
        numbers = _lines([(table.header.number,) for table in fitting])
        raise RecipeError(
            f"Several tables could be the one to update: those in {numbers}. {advice}around the right one."
        )
    return fitting[0]


def _merged(text: str, old: Table, notes_text: str, comparison: Comparison, teams: Sequence[str]) -> str:
    """Render a comparison, and add the rows of other teams in the old table to its rows."""
    team = next((index for index, heading in enumerate(headings_of(old)) if heading.kind == "team"), None)
    other_lines = [line for line in old.rows if text_at(line, team) not in teams] if team is not None else []
    if team is None or not other_lines:
        return as_markdown(comparison)
    rendered = as_markdown(replace(comparison, columns=_same_columns(old, comparison)))
    (new,) = markdown_tables.read(rendered).tables[:1]
    lines = [(text_at(line, team), text[line.start : line.end]) for line in other_lines]
    old_notes, new_notes = readme_notes.listed(notes_text), readme_notes.listed(rendered[new.end :])
    used = {number for _, line in lines for number in readme_notes.marks(line)}
    numbering = readme_notes.Numbering({number: note for number, note in old_notes.items() if number in used})
    places = {number: numbering.number(note) for number, note in new_notes.items()}
    own = ((line, rendered[line.start : line.end]) for line in new.rows)
    lines += [(text_at(line, team), readme_notes.replaced(row, places)) for line, row in own]
    lines.sort(key=lambda line: natural(line[0]))
    tail = re.sub(r"\A\n\n- \[\d+\] .*(?:\n- \[\d+\] .*)*", "", rendered[new.end :])
    listed = "\n".join(numbering.lines)
    table = "\n".join([*rendered.split("\n")[:2], *(line for _, line in lines)])
    return f"{table}\n\n{listed}{tail}" if listed else f"{table}{tail}"


def _same_columns(old: Table, comparison: Comparison) -> tuple[str, ...]:
    """Return the keys of the columns of a table that this tool wrote."""
    metrics = sorted({name for row in comparison.rows for name in row.values})
    column_keys = tuple(dict.fromkeys([*(column.key for column in COLUMNS), "hardware", "pareto", *metrics]))
    candidates = columns(column_keys, comparison.metrics)
    keys = {column.header["en"]: column.key for column in reversed(candidates) if column.key in metrics}  # 0.1: English
    keys |= {column.header[comparison.language]: column.key for column in reversed(candidates)}
    unknown = [cell.text for cell in old.header.cells if cell.text not in keys]
    if unknown:
        raise RecipeError(
            f"The table in line {old.header.number} has rows of other teams, and columns that can't be filled now: "
            f"{', '.join(unknown)}. Use the language and options it was made with, or write the rows of all teams."
        )
    return tuple(keys[cell.text] for cell in old.header.cells)
