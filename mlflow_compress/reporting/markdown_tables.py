"""Finds the tables of a Markdown text, with the content and the exact place of each cell.

Tables and cells are the same as on GitHub, by a CommonMark parser: a table inside a code block or an HTML comment does
not count, and only a backslash keeps a pipe inside a cell, even in code.
Source: GitHub Flavored Markdown, section 4.10.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.token import Token

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"(?=.*\|)\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_HTML_TABLE = re.compile(r"<!--.*?(?:-->|\Z)|(<table\b)", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"</?br\s*/?\s*>", re.IGNORECASE)  # browsers also break at </br>
_BLANKS = " \t\v\f"
_AROUND_BREAK = re.compile(r"[ \t\v\f]*\n[ \t\v\f\n]*")
_RUN_OF_BLANKS = re.compile(r"[ \t\v\f\r\n]+")  # a no-break space may be part of a number
_SPANS = "spans"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what a reader sees, in one line: no decoration, entities decoded, links as their text.
        lines: the same, with a line break where the cell has one (`<br>`).
        raw: the text in the file, without surrounding blanks.
        start, end: where it begins and ends in the text, with blanks, without pipes.
    """

    text: str
    lines: str
    raw: str
    start: int
    end: int


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        number: the number in the text, from 1.
        start, end: where it begins and ends in the text, without its line ending.
        cells: its cells; there may be fewer or more than in the header.
    """

    number: int
    start: int
    end: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        header: its first line.
        rule: the line below it.
        rows: the lines below the rule.
        end: where its last line ends in the text, without the line ending.
        newline: the ending of its first line, which added lines should have too.
        is_nested: whether it is in a list or a quote.
        section: the heading above it as plain text; empty where there is none.
    """

    header: Line
    rule: Line
    rows: tuple[Line, ...]
    end: int
    newline: str
    is_nested: bool
    section: str


@dataclass(frozen=True)
class Page:
    """The parts of a text that matter here.

    Attributes:
        tables: the tables, in order.
        lookalikes: first and last line, from 1, of text meant as a table but shown as plain text.
        html: lines of HTML outside lists and quotes, including comments: number from 1, start, end.
        html_tables: lines, from 1, where a table in HTML begins. Its content is not read.
    """

    tables: tuple[Table, ...]
    lookalikes: tuple[tuple[int, int], ...]
    html: tuple[tuple[int, int, int], ...]
    html_tables: tuple[int, ...]


def read(text: str) -> Page:
    """Find the tables of a Markdown text.

    Args:
        text: the file's text: any line ending, with or without a byte order mark.
    """
    skipped = len(text) - len(text.removeprefix("\ufeff"))
    lines = [match.span() for match in _LINE.finditer(text, skipped)]
    tokens = _parser().parse(text[skipped:])
    return Page(
        tuple(_tables(text, tokens, lines)),
        tuple(lines_of for token in tokens if token.type == "inline" and (lines_of := _lookalike(token))),
        tuple(
            (number + 1, start, _content_end(text, end))
            for token in tokens
            if token.type == "html_block" and token.level == 0 and token.map
            for number, (start, end) in enumerate(lines[token.map[0] : token.map[1]], token.map[0])
        ),
        tuple(
            token.map[0] + token.content.count("\n", 0, match.start()) + 1
            for token in tokens
            if token.type == "html_block" and token.map
            for match in _HTML_TABLE.finditer(token.content)
            if match[1]
        ),
    )


def plain(markdown: str) -> str:
    """Return what a reader sees of one line of Markdown; no-break and thin spaces are kept."""
    return _RUN_OF_BLANKS.sub(" ", _broken(markdown)).strip(_BLANKS)


def _broken(markdown: str) -> str:
    inline = _parser().parseInline(markdown.replace("\\|", "|"))[0]
    return "".join(_seen(inline.children or []))


def _seen(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in ("text", "code_inline"):
            yield token.content
        elif token.type == "image":
            yield from _seen(token.children or [])
        elif token.type in ("softbreak", "hardbreak") or _BREAK.fullmatch(token.content):
            yield "\n"


def _tables(text: str, tokens: Sequence[Token], lines: list[tuple[int, int]]) -> Iterator[Table]:
    section = ""
    for previous, token in itertools.pairwise(tokens):
        if previous.type == "heading_open":
            section = plain(token.content)
        elif previous.type == "table_open":
            yield _table(text, previous, lines, section)


def _table(text: str, token: Token, lines: list[tuple[int, int]], section: str) -> Table:
    # The parser turns every line ending into one character, so count places from the start of their line.
    table_lines = [
        _line(text, line + 1, lines[line][0] + start, lines[line][0] + start + length)
        for line, start, length in token.meta[_SPANS]
    ]
    end = lines[table_lines[0].number - 1][1]
    newline = text[_content_end(text, end) : end]
    return Table(
        table_lines[0], table_lines[1], tuple(table_lines[2:]), table_lines[-1].end, newline, token.level > 0, section
    )


def _line(text: str, number: int, start: int, end: int) -> Line:
    inner = text[start:end]
    left = start + len(inner) - len(inner.lstrip(_BLANKS))
    right = start + len(inner.rstrip(_BLANKS))
    pipes = [match.start() for match in _PIPE.finditer(text[left:right])]
    starts, ends = [0, *(pipe + 1 for pipe in pipes)], [*pipes, right - left]
    spans = list(zip(starts, ends, strict=True))
    if spans and spans[0][0] == spans[0][1]:
        spans.pop(0)
    if spans and spans[-1][0] == spans[-1][1]:
        spans.pop()
    cells = []
    for span_start, span_end in spans:
        raw = text[left + span_start : left + span_end].strip(_BLANKS)
        visible_text = _broken(raw)
        text_of_cell = _RUN_OF_BLANKS.sub(" ", visible_text).strip(_BLANKS)
        lines = _AROUND_BREAK.sub("\n", visible_text).strip(_BLANKS + "\n")
        cells.append(Cell(text_of_cell, lines, raw, left + span_start, left + span_end))
    return Line(number, start, end, tuple(cells))


def _content_end(text: str, end: int) -> int:
    """Return where a line's content ends, given the end of the line."""
    if text.endswith("\r\n", 0, end):
        return end - 2
    return end - 1 if text.endswith(("\n", "\r"), 0, end) else end


def _lookalike(token: Token) -> tuple[int, int] | None:
    if token.map is None or token.level > 1:
        return None
    content = token.content.split("\n")
    for number, line in enumerate(content[1:], 1):
        if _RULE.fullmatch(line) and "|" in content[number - 1]:
            return token.map[0] + number, token.map[0] + len(content)
    return None


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block.table import table

    def spanned(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        """Record where each line of a table begins after list or quote marks: only the parser knows it."""
        first = len(state.tokens)
        is_table = table(state, start, end, silent)
        if is_table and not silent:
            state.tokens[first].meta[_SPANS] = [
                (line, begin - state.src.rfind("\n", 0, begin) - 1, state.eMarks[line] - begin)
                for line in range(start, state.line)
                for begin in [state.bMarks[line] + state.tShift[line]]
            ]
        return is_table

    parser = MarkdownIt("commonmark").enable("table")
    parser.block.ruler.at("table", spanned, {"alt": ["paragraph", "reference"]})
    return parser
