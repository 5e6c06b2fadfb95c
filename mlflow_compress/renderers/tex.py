"""LaTeX: a booktabs table, ready for a paper."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress import words
from mlflow_compress.plain_text import HIDDEN, REPLACEMENT
from mlflow_compress.records import Comparison
from mlflow_compress.reporting.table_text import (
    cells,
    columns,
    failure_lines,
    failures_title,
    headers,
    is_original,
    legend,
    summaries,
    summaries_title,
)
from mlflow_compress.sockets import Renderer

MOST_ON_A_PAGE = 40
_HEADER_WIDTH = 12  # characters; longer headers are broken between words
_NEEDS = "% For lualatex or xelatex (pdflatex needs fontenc T1, T2A). The preamble needs booktabs, graphicx, longtable."
# Characters with a meaning in LaTeX: specials, ligatures, and what `\\` takes as an argument.
_COMMANDS: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",
    ",": ",{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "≈": r"\ensuremath{\approx}",
}


@dataclass
class Tex(Renderer):
    """A `table` at most as wide as the text, or a `longtable` above 40 rows; below it the notes and failures.

    Names and reasons are always text. White space becomes one space, and control characters become U+FFFD.
    """

    suffix: ClassVar[str] = ".tex"

    def render(self, comparison: Comparison) -> bytes:
        """Return the comparison as UTF-8 LaTeX, without a preamble."""
        table = _long_table if len(comparison.rows) > MOST_ON_A_PAGE else _table
        return ("\n".join([_NEEDS, *table(comparison)]) + "\n").encode()


def _table(comparison: Comparison) -> Iterator[str]:
    yield r"\begin{table}"
    yield rf"\caption{{{_caption(comparison)}}}"
    yield r"\centering\small"
    yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{{_alignment(comparison)}}}"
    yield from (r"\toprule", _header(comparison), r"\midrule", *_lines(comparison), r"\bottomrule")
    yield r"\end{tabular}}"
    yield from _below(comparison)
    yield r"\end{table}"


def _long_table(comparison: Comparison) -> Iterator[str]:
    yield r"{\footnotesize\setlength{\tabcolsep}{3pt}"
    yield rf"\begin{{longtable}}{{{_alignment(comparison)}}}"
    yield rf"\caption{{{_caption(comparison)}}}\\"
    yield from (r"\toprule", _header(comparison), r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot")
    yield from _lines(comparison)
    yield r"\end{longtable}"
    yield from _below(comparison)
    yield "}"


def _caption(comparison: Comparison) -> str:
    return escape(": ".join(filter(None, (words.COMPARISON[comparison.language], comparison.title))))


def _alignment(comparison: Comparison) -> str:
    return "".join("r" if column.numeric else "l" for column in columns(comparison.columns, comparison.metrics))


def _header(comparison: Comparison) -> str:
    shown_columns = columns(comparison.columns, comparison.metrics)
    texts = (
        textwrap.wrap(text, _HEADER_WIDTH, break_long_words=False)
        for text in headers(shown_columns, comparison.language)
    )
    return _line([_stacked(lines, column.numeric) for lines, column in zip(texts, shown_columns, strict=True)])


def _lines(comparison: Comparison) -> Iterator[str]:
    shown_columns = columns(comparison.columns, comparison.metrics)
    noted = next((index for index, column in enumerate(shown_columns) if column.key == "method"), 0)
    for number, row in enumerate(comparison.rows):
        if number and is_original(row):
            yield r"\addlinespace"
        texts = cells(row, shown_columns, comparison.language, comparison.metrics)
        line = [
            _stacked(text.split(", ") if column.key == "quality" else [text], column.numeric)
            for text, column in zip(texts, shown_columns, strict=True)
        ]
        if row.notes:
            line[noted] += rf"\textsuperscript{{{', '.join(str(note + 1) for note in row.notes)}}}"
        yield _line(line)


def _stacked(lines: Sequence[str], is_numeric: bool) -> str:
    """Return a cell of several lines."""
    if len(lines) < 2:
        return escape(lines[0] if lines else "")
    stacked = r" \\ ".join(escape(line) for line in lines)
    return rf"\shortstack[{'r' if is_numeric else 'l'}]{{{stacked}}}"


def _line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _below(comparison: Comparison) -> Iterator[str]:
    paragraphs = [rf"\textsuperscript{{{index}}} {escape(note)}" for index, note in enumerate(comparison.footnotes, 1)]
    if lines := summaries(comparison):
        paragraphs += [f"{summaries_title(comparison.language)}:", *map(escape, lines)]
    paragraphs.append(escape(legend(comparison)))
    if comparison.failures:
        paragraphs.append(f"{failures_title(comparison.failures, comparison.language)}:")
        paragraphs += [escape(line) for line in failure_lines(comparison.failures, comparison.language)]
    yield r"\par\medskip"
    yield r"\begin{minipage}{\linewidth}\raggedright\footnotesize"
    yield "\\par\n".join(paragraphs)
    yield r"\end{minipage}"


_SPECIAL = re.compile(r"[\\{}$&#%_^~<>|\"'`\[\]*≈]|-(?=-)|,(?=,)|\s+|" + HIDDEN)


def escape(text: str) -> str:
    """Return any text as plain text, for a place where LaTeX reads paragraphs."""
    return _SPECIAL.sub(_escaped, text.strip())


def _escaped(match: re.Match[str]) -> str:
    text = match.group()
    return " " if text.isspace() else _COMMANDS.get(text, REPLACEMENT)
