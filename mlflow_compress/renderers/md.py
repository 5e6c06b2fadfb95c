"""Markdown: a table for a README, also readable in a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison
from mlflow_compress.reporting.table_text import (
    cells,
    columns,
    failure_lines,
    failures_title,
    headers,
    legend,
    summaries,
    summaries_title,
)
from mlflow_compress.sockets import Renderer

_WIDEST = 60  # a wider cell is not padded, so that it does not widen all others


@dataclass
class Markdown(Renderer):
    """A GitHub table, padded so that its source is readable; below it the notes and failures.

    Names and reasons are always shown as text: what Markdown, HTML or GitHub would interpret is escaped. Only
    characters that no terminal or page shows (`plain_text`) are replaced, by U+FFFD.
    """

    suffix: ClassVar[str] = ".md"

    def render(self, comparison: Comparison) -> bytes:
        """Return the comparison as UTF-8 Markdown."""
        return ("\n\n".join("\n".join(block) for block in _blocks(comparison) if block) + "\n").encode()


def _blocks(comparison: Comparison) -> Iterator[list[str]]:
    language = comparison.language
    shown_columns = columns(comparison.columns, comparison.metrics)
    noted = next((index for index, column in enumerate(shown_columns) if column.key == "method"), 0)
    table = [[escape(text) for text in headers(shown_columns, language)]]
    for row in comparison.rows:
        line = [escape(text) for text in cells(row, shown_columns, language, comparison.metrics)]
        line[noted] = " ".join(filter(None, [line[noted], *(f"[{note + 1}]" for note in row.notes)]))
        table.append(line)
    yield list(padded_table([column.numeric for column in shown_columns], table))
    yield [f"- [{index}] {escape(note)}" for index, note in enumerate(comparison.footnotes, 1)]
    if lines := summaries(comparison):
        yield [f"{summaries_title(language)}:"]
        yield [f"- {escape(line)}" for line in lines]
    yield [escape(legend(comparison))]
    if comparison.failures:
        yield [f"{failures_title(comparison.failures, language)}:"]
        yield [f"- {escape(line)}" for line in failure_lines(comparison.failures, language)]


def padded_table(numeric: Sequence[bool], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a GitHub table.

    Args:
        numeric: for each column, whether it is aligned to the right.
        lines: the cells, already escaped; the first line is the header.
    """
    widths = [
        max([4, *(width for line in lines if (width := _width(line[column])) <= _WIDEST)])
        for column in range(len(numeric))
    ]
    rule = [
        "-" * (width - 1) + ":" if is_numeric else ":" + "-" * (width - 1)
        for is_numeric, width in zip(numeric, widths, strict=True)
    ]
    for line in (lines[0], rule, *lines[1:]):
        padded = (
            _padding(text, width) + text if is_numeric else text + _padding(text, width)
            for text, is_numeric, width in zip(line, numeric, widths, strict=True)
        )
        yield f"| {' | '.join(padded)} |"


def _padding(text: str, width: int) -> str:
    return " " * (width - _width(text))


def _width(text: str) -> int:
    """Return the width in terminal columns: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def escape(text: str) -> str:
    """Return any text as plain text: one line, no markup, no HTML, no link."""
    text = visible(text)
    body = text.strip()
    start = text.index(body) if body else len(text)
    # A table trims its cells: spaces at the ends are kept only as entities.
    return _entities(text[:start]) + _INSIDE.sub(_escaped, body) + _entities(text[start + len(body) :])


# Backslash and the characters that open markup; `_` only where it could (not within a word such as int8_dynamic);
# what GitHub turns into a link: `://`, `www.`, the @ of an address or a mention; white space other than the space.
_INSIDE = re.compile(
    r"[\\`*\[<&|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|@+"
    r"|[^\S ]",
    re.IGNORECASE,
)


def _escaped(match: re.Match[str]) -> str:
    text = match.group()
    if text[0] == "@":
        return f"`{text}`"  # an escape is not enough: GitHub looks for links after unescaping
    return "\\" + text if text.isascii() and text.isprintable() else _entities(text)


def _entities(text: str) -> str:
    return "".join(f"&#{ord(char)};" for char in text)
