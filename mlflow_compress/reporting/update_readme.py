"""Brings the comparison table of a README up to date, and touches nothing else of it.

Where the table stands is said by two comments on lines of their own; what is between them belongs to this tool:

    <!-- compress-report: begin -->
    <!-- compress-report: end -->

Without them it is the one table whose header names models, methods and a number that is known here, as the course's
does: see `edited_table`.
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
    """Return the language of the table that would be brought up to date: `ru` where its header has Russian words."""
    page = markdown_tables.read(text)
    try:
        marked = _between_markers(text, page)
        tables = [_fitting(page)] if marked is None else _inside(page, marked)
    except RecipeError:
        return "en"
    return "ru" if any(CYRILLIC.search(cell.text) for table in tables[:1] for cell in table.header.cells) else "en"


def update(text: str, comparison: Comparison, *, teams: Sequence[str] = ()) -> str:
    """Return a README with its comparison table brought up to date.

    Between the markers stands what the Markdown renderer gives. The rows of other teams than `teams` stay there as they
    are, with the notes that they refer to, and where there are any, the columns stay, too.

    A table without markers is changed cell by cell. A row is found by its model and method, and by its team where there
    is a column of teams, which is added where the comparison has rows of several. Without one, the rows with a model
    and method that the comparison has are taken for those of `teams`. Its numbers are written in the units of the
    header; a cell that the comparison has no number for stays. Rows that are not there yet come after the last one of
    their model; rows that only keep a place (`your model name`) give way to them. Footnotes are listed below the table.
    Rows that were copied by hand into the store never replace what is there.

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
        text = with_teams(text, _fitting(page), comparison)
        page = markdown_tables.read(text)
        return edited(text, page, _fitting(page), comparison)
    start, end, newline = marked
    kept = next(iter(_inside(page, marked)), None) if teams else None
    block = as_markdown(comparison) if kept is None else _merged(text, kept, text[kept.end : end], comparison, teams)
    return f"{text[:start]}{newline}{block.replace(chr(10), newline)}{newline}{newline}{text[end:]}"


def _inside(page: Page, marked: tuple[int, int, str]) -> list[Table]:
    return [table for table in page.tables if marked[0] <= table.header.start < marked[1]]


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
        above = headings_of(table)
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


def _merged(text: str, old: Table, below: str, comparison: Comparison, teams: Sequence[str]) -> str:
    """Render a comparison, and put the rows of other teams that stand in the old table among its rows."""
    team = next((at for at, each in enumerate(headings_of(old)) if each.kind == "team"), None)
    others = [line for line in old.rows if text_at(line, team) not in teams] if team is not None else []
    if team is None or not others:
        return as_markdown(comparison)
    rendered = as_markdown(replace(comparison, columns=_same_columns(old, comparison)))
    (new,) = markdown_tables.read(rendered).tables[:1]
    lines = [(text_at(line, team), text[line.start : line.end]) for line in others]
    before, below_new = readme_notes.listed(below), readme_notes.listed(rendered[new.end :])
    used = {number for _, line in lines for number in readme_notes.marks(line)}
    numbering = readme_notes.Numbering({number: note for number, note in before.items() if number in used})
    places = {number: numbering.number(note) for number, note in below_new.items()}
    own = ((line, rendered[line.start : line.end]) for line in new.rows)
    lines += [(text_at(line, team), readme_notes.replaced(said, places)) for line, said in own]
    lines.sort(key=lambda line: natural(line[0]))
    tail = re.sub(r"\A\n\n- \[\d+\] .*(?:\n- \[\d+\] .*)*", "", rendered[new.end :])
    listed = "\n".join(numbering.lines)
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
