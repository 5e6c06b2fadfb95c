"""Keeps the footnotes of a table in a README: their marks in the rows, and their list below the table.

A table between the markers of `update_readme` has its list within them. Below any other table the list is between two
comments, so that it can be found again and nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlflow_compress.reporting.markdown_tables import Page, Table

BEGIN, END = "<!-- compress-report: notes -->", "<!-- compress-report: end of notes -->"

_MARK = re.compile(r"(?<!\\)\[(\d+)\]")
_MARKS_AT_END = re.compile(r"(?:\s*(?<!\\)\[\d+\])+\s*$")
_LISTED = re.compile(r"^- \[(\d+)\] (.*)$", re.MULTILINE)


def marks(markdown: str) -> list[int]:
    """Return the numbers of all footnotes that a text refers to."""
    return [int(number) for number in _MARK.findall(markdown)]


def without_marks(cell: str, own: Iterable[int] | None = None) -> str:
    """Return a cell without the marks at its end.

    Args:
        cell: the cell's text in the file.
        own: the numbers of the marks to remove; None removes all.
    """
    ending = _MARKS_AT_END.search(cell)
    if ending is None:
        return cell
    foreign_marks = [] if own is None else [number for number in marks(ending.group()) if number not in set(own)]
    return " ".join([cell[: ending.start()], *(f"[{number}]" for number in foreign_marks)])


def with_marks(cell: str, numbers: Iterable[int]) -> str:
    """Return a cell with marks after it."""
    return " ".join(filter(None, [cell, *(f"[{number}]" for number in sorted(numbers))]))


def listed(markdown: str) -> dict[int, str]:
    """Return the footnotes of a list, by their numbers."""
    return {int(number): note for number, note in _LISTED.findall(markdown.replace("\r", ""))}


def replaced(markdown: str, numbers: Mapping[int, int]) -> str:
    """Return a text with new numbers in its marks."""
    return _MARK.sub(lambda mark: f"[{numbers.get(int(mark[1]), int(mark[1]))}]", markdown)


@dataclass
class Numbering:
    """Footnotes by number: existing ones keep their number, a new one gets the lowest free number.

    Attributes:
        notes: the footnotes so far.
        before: all footnotes before the change: one that appears again gets its old number.
        foreign: numbers with another meaning elsewhere in the file.
    """

    notes: dict[int, str] = field(default_factory=dict)
    before: Mapping[int, str] = field(default_factory=dict)
    foreign: frozenset[int] = frozenset()

    def number(self, note: str) -> int:
        """Return a footnote's number, and add it to the notes."""
        matches = [number for number, text in {**self.before, **self.notes}.items() if text == note]
        used_numbers = {*self.notes, *self.foreign}
        number = next((old for old in matches if self.notes.get(old, note) == note and old not in self.foreign), 0)
        number = number or next(
            candidate for candidate in range(1, len(used_numbers) + 2) if candidate not in used_numbers
        )
        self.notes[number] = note
        return number

    @property
    def lines(self) -> list[str]:
        """The list, one line for each footnote."""
        return [f"- [{number}] {note}" for number, note in sorted(self.notes.items())]


def block_below(text: str, page: Page, table: Table) -> tuple[int, int] | None:
    """Return the span of the list of a table's footnotes, with the blank lines above it; None where there is none."""
    begins, ends = (
        [(start, end) for _, start, end in page.html if text[start:end].strip() == mark and start >= table.end]
        for mark in (BEGIN, END)
    )
    if not begins or not ends or text[table.end : begins[0][0]].strip() or ends[0][0] < begins[0][0]:
        return None
    return table.end, ends[0][1]


def block(lines: Iterable[str], newline: str) -> str:
    """Return the text below a table: its footnotes between their comments; empty without footnotes."""
    all_lines = list(lines)
    return newline.join(["", "", BEGIN, "", *all_lines, "", END]) if all_lines else ""
