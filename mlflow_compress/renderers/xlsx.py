"""XLSX: a workbook whose numbers are numbers, with every digit."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress import words
from mlflow_compress.errors import CompressError
from mlflow_compress.records import Comparison, Row, finite
from mlflow_compress.reporting import table_text
from mlflow_compress.reporting.chart_choices import Axis
from mlflow_compress.sockets import Renderer

_TEXTS = ("team", "model", "method")
_CIRCUMSTANCES = ("hardware", "pareto")
_LONGEST = 32767  # characters, the most that a cell holds
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what XML 1.0 can't hold


@dataclass
class Xlsx(Renderer):
    """Two sheets: the rows, with a frozen header and filters; and the footnotes, summaries, legend and failures.

    After team, model and method come all metrics, the table's own first, in the unit that the header says, then the
    ratios to the original, the hardware, the Pareto mark and the footnotes. A text is never a formula. Characters that
    the format can't hold are left out.
    """

    suffix: ClassVar[str] = ".xlsx"

    def check(self) -> None:
        """Look for openpyxl."""
        try:
            import openpyxl  # noqa: F401
        except ImportError:
            raise CompressError(
                'Writing .xlsx needs openpyxl: pip install "mlflow-compress[xlsx]". Or write .csv instead.'
            ) from None

    def render(self, comparison: Comparison) -> bytes:
        """Write the comparison as a workbook."""
        from openpyxl import Workbook

        book = Workbook()
        names = words.COMPARISON[comparison.language], words.NOTES[comparison.language]
        table, about = book.active, book.create_sheet(names[1])
        table.title = names[0]
        for at, line in enumerate(_lines(comparison), 1):
            _write(table, at, line)
        table.freeze_panes = "D2"
        table.auto_filter.ref = table.dimensions
        for at, text in enumerate(_about(comparison), 1):
            _write(about, at, [text])
        _lay_out(table)
        about.column_dimensions["A"].width = 120
        written = io.BytesIO()
        book.save(written)
        return written.getvalue()


def _lines(it: Comparison) -> Iterator[list[str | float | None]]:
    language = it.language
    metrics = table_text.ordered(name for row in it.rows for name in finite(row.values))
    ratios = [name for name in metrics if any(name in finite(row.ratios) for row in it.rows)]
    texts, circumstances = table_text.columns(_TEXTS), table_text.columns(_CIRCUMSTANCES)
    yield [
        *table_text.headers(texts, language),
        *(table_text.label(name, language, it.metrics) for name in metrics),
        *(Axis(name, relative=True).label(language, it.metrics) for name in ratios),
        *table_text.headers(circumstances, language),
        words.NOTES[language],
    ]
    for row in it.rows:
        values, divided = finite(row.values), finite(row.ratios)
        yield [
            *table_text.cells(row, texts, language),
            *(values.get(name) for name in metrics),
            *(divided.get(name) for name in ratios),
            *_without_missing(row, circumstances, language),
            "; ".join(it.footnotes[note] for note in row.notes),
        ]


def _without_missing(row: Row, columns: Sequence[table_text.Column], language: str) -> list[str | float | None]:
    return [None if text == table_text.MISSING else text for text in table_text.cells(row, columns, language)]


def _about(it: Comparison) -> Iterator[str]:
    yield from (f"[{index}] {note}" for index, note in enumerate(it.footnotes, 1))
    yield table_text.legend(it)
    if lines := table_text.summaries(it):
        yield from (f"{table_text.summaries_title(it.language)}:", *lines)
    if it.failures:
        yield f"{table_text.failures_title(it.language)}:"
        yield from (table_text.failure(each, it.language) for each in it.failures)


def _write(sheet: Any, at: int, line: Sequence[str | float | None]) -> None:
    for place, value in enumerate(line, 1):
        if isinstance(value, str):
            cell = sheet.cell(at, place, _UNSEEN.sub("", value)[:_LONGEST])
            cell.data_type = "s"  # openpyxl would take =1+1 for a formula, and #N/A for an error
        elif value is not None:
            sheet.cell(at, place, value)


def _lay_out(sheet: Any) -> None:
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter

    for cell in sheet[1]:
        cell.font = Font(bold=True)
        cell.alignment = Alignment(wrap_text=True, vertical="top")
    for place in range(1, sheet.max_column + 1):
        width = 28 if place in (2, 3) else 16
        sheet.column_dimensions[get_column_letter(place)].width = width
