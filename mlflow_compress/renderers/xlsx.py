"""XLSX: a workbook with the table, with all numbers as numbers, and with the notes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress import words
from mlflow_compress.errors import CompressError
from mlflow_compress.records import Comparison, Row, finite
from mlflow_compress.reporting import metric_facts, table_text
from mlflow_compress.reporting.chart_choices import Axis
from mlflow_compress.sockets import Renderer

_TEXTS = ("team", "model", "method")
_CIRCUMSTANCES = ("hardware", "pareto")
_NARROWEST, _WIDEST = 9, 46  # characters of a column
_LONGEST = 32767  # characters, the limit of a cell
_LONGEST_LINK = 2000
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what XML 1.0 can't contain


@dataclass
class Xlsx(Renderer):
    """Three sheets: the table, all numbers, and the notes.

    The table has the same columns as in other formats. A cell contains one number with every digit, and shows the
    significant ones; ratios to the original and differences of scores are in separate columns, with `≈` where they may
    be noise. The header is frozen, originals are bold, and runs are links where a server shows them.

    The second sheet has all metrics in the unit of the header, then the ratios to the original, the hardware, the
    Pareto mark and the footnotes. The third has footnotes, summaries, legend and failures. A text is never a formula.
    Characters that the format can't contain are left out.
    """

    suffix: ClassVar[str] = ".xlsx"

    def check(self) -> None:
        """Check that openpyxl is installed.

        Raises:
            CompressError: it is not.
        """
        try:
            import openpyxl  # noqa: F401
        except ImportError:
            raise CompressError(
                'Writing .xlsx requires openpyxl: pip install "mlflow-compress[xlsx]". Or write .csv instead.'
            ) from None

    def render(self, comparison: Comparison) -> bytes:
        """Return the comparison as a workbook."""
        from openpyxl import Workbook

        book, language = Workbook(), comparison.language
        table = book.active
        table.title = words.COMPARISON[language]
        columns = list(_columns(comparison))
        for number, column in enumerate(columns, 1):
            _write(table, number, column)
        _lay_out(table, frozen=sum(column.is_name for column in columns))
        numbers, notes = book.create_sheet(words.ALL_NUMBERS[language]), book.create_sheet(words.NOTES[language])
        for number, (header, *values) in enumerate(zip(*_lines(comparison), strict=True), 1):
            _write(numbers, number, _Column(str(header), [_Cell(value) for value in values]))
        _lay_out(numbers, frozen=len(_TEXTS))
        _write(notes, 1, _Column("", [_Cell(text) for text in _about(comparison)]), rows_above=0)
        notes.column_dimensions["A"].width = 120
        buffer = io.BytesIO()
        book.save(buffer)
        return buffer.getvalue()


@dataclass(frozen=True)
class _Cell:
    """The content of a cell: a text, a number with its format, or nothing."""

    value: str | float | None = None
    form: str = "General"
    link: str = ""
    is_bold: bool = False


@dataclass(frozen=True)
class _Column:
    """A column: its header, a cell for each row, and whether it identifies the row."""

    header: str
    cells: Sequence[_Cell]
    is_name: bool = False


def _columns(comparison: Comparison) -> Iterator[_Column]:
    """Yield the table's columns, each followed by its ratios and differences."""
    for column in table_text.columns(comparison.columns, comparison.metrics):
        header = column.header[comparison.language]
        if column.key == "quality":
            yield from _scores(comparison)
        elif "/" not in column.key:
            texts = [
                table_text.cells(row, [column], comparison.language, comparison.metrics)[0] for row in comparison.rows
            ]
            cells = [
                _Cell(None if text == table_text.MISSING else text, is_bold=table_text.is_original(row))
                for row, text in zip(comparison.rows, texts, strict=True)
            ]
            yield _Column(header, cells, is_name=column.key in _TEXTS)
        else:
            unit = table_text.unit(column.key)
            yield _numbers(comparison, column.key, header if unit in header else f"{header}, {unit}")
            yield from _ratios(comparison, column.key)
    for device in sorted({device for row in comparison.rows for device in row.runs}):
        header = words.RUN[comparison.language].format(device=words.DEVICES.get(device, device))
        yield _Column(header, [_Cell(row.runs.get(device), link=row.links.get(device, "")) for row in comparison.rows])
    if comparison.footnotes:
        notes = ["; ".join(comparison.footnotes[note] for note in row.notes) for row in comparison.rows]
        yield _Column(words.NOTES[comparison.language], [_Cell(note or None) for note in notes])


def _numbers(comparison: Comparison, name: str, header: str) -> _Column:
    values = [finite(row.values).get(name) for row in comparison.rows]
    return _Column(header, [_Cell(value, _form(value, is_size=table_text.is_size(name))) for value in values])


def _ratios(comparison: Comparison, name: str) -> Iterator[_Column]:
    """Yield a number's ratios to the original; for weights also those on disk, where the saved model shrank more."""
    on_disk = any(table_text.is_packed_on_disk(row, name) for row in comparison.rows)
    for metric in (name, *(["size/disk_mib"] if on_disk and "size/disk_mib" not in comparison.columns else [])):
        cells = []
        for row in comparison.rows:
            ratio = finite(row.ratios).get(metric)
            noise = '"≈"' if table_text.is_told_apart(row, metric) is False else ""
            text = "" if ratio is None else table_text.ratio(ratio).removesuffix("x")
            cells.append(_Cell(ratio, f'{noise}{_form_of(text)}"x"'))
        if any(cell.value is not None for cell in cells):
            yield _Column(Axis(metric, relative=True).label(comparison.language, comparison.metrics), cells)


def _scores(comparison: Comparison) -> Iterator[_Column]:
    """Yield a column for each score, its difference from the original's, and the number of samples."""
    scores_by_row = [table_text.scores(row.values, comparison.metrics) for row in comparison.rows]
    for name in dict.fromkeys(name for row_scores in scores_by_row for name in row_scores):
        values = [
            row.values[name] if name in scores else None
            for row, scores in zip(comparison.rows, scores_by_row, strict=True)
        ]
        header = table_text.label(name, comparison.language, comparison.metrics)
        yield _Column(header, [_Cell(value, _form(value)) for value in values])
        difference = f"{name}{table_text.DIFFERENCE}"
        cells = [_difference(row, difference) for row in comparison.rows]
        if any(cell.value is not None for cell in cells):
            yield _Column(table_text.label(difference, comparison.language, comparison.metrics), cells)
    counts = [finite(row.values).get(metric_facts.COUNT) for row in comparison.rows]
    if any(count is not None for count in counts):
        header = table_text.label(metric_facts.COUNT, comparison.language, comparison.metrics)
        yield _Column(header, [_Cell(count, "0") for count in counts])


def _difference(row: Row, name: str) -> _Cell:
    value = finite(row.values).get(name)
    form, noise = _form(value, digits=2), '"≈"' if table_text.is_told_apart(row, name) is False else ""
    return _Cell(value, f"{noise}+{form};{noise}-{form};±0")


def _form(value: float | None, digits: int = 4, *, is_size: bool = False) -> str:
    """Return the number format with as many digits as in the table's other formats."""
    if value is None:
        return "General"
    return _form_of(table_text.megabytes(value) if is_size else table_text.number(value, digits))


def _form_of(text: str) -> str:
    """Return the number format with as many digits as a text has."""
    if "e" in text:
        return "0.000E+00"
    decimals = len(text.partition(".")[2])
    return f"0.{'0' * decimals}" if decimals else "0"


def _lines(comparison: Comparison) -> Iterator[list[str | float | None]]:
    language = comparison.language
    metrics = table_text.ordered(name for row in comparison.rows for name in finite(row.values))
    ratios = [name for name in metrics if any(name in finite(row.ratios) for row in comparison.rows)]
    texts, circumstances = table_text.columns(_TEXTS), table_text.columns(_CIRCUMSTANCES)
    yield [
        *table_text.headers(texts, language),
        *(table_text.label(name, language, comparison.metrics) for name in metrics),
        *(Axis(name, relative=True).label(language, comparison.metrics) for name in ratios),
        *table_text.headers(circumstances, language),
        words.NOTES[language],
    ]
    for row in comparison.rows:
        values, divided = finite(row.values), finite(row.ratios)
        yield [
            *table_text.cells(row, texts, language),
            *(values.get(name) for name in metrics),
            *(divided.get(name) for name in ratios),
            *_without_missing(row, circumstances, language),
            "; ".join(comparison.footnotes[note] for note in row.notes),
        ]


def _without_missing(row: Row, columns: Sequence[table_text.Column], language: str) -> list[str | float | None]:
    return [None if text == table_text.MISSING else text for text in table_text.cells(row, columns, language)]


def _about(comparison: Comparison) -> Iterator[str]:
    yield from (f"[{index}] {note}" for index, note in enumerate(comparison.footnotes, 1))
    yield table_text.legend(comparison)
    if lines := table_text.summaries(comparison):
        yield from (f"{table_text.summaries_title(comparison.language)}:", *lines)
    if comparison.failures:
        yield f"{table_text.failures_title(comparison.failures, comparison.language)}:"
        yield from table_text.failure_lines(comparison.failures, comparison.language)


def _write(sheet: Any, number: int, column: _Column, rows_above: int = 1) -> None:
    """Write a column: the header, and below it the cells.

    Args:
        sheet: a sheet of the workbook.
        number: the column's number, from 1.
        column: its content.
        rows_above: rows above the cells; 0: there is no header.
    """
    from openpyxl.styles import Font

    for line, content in enumerate(
        ([_Cell(column.header, is_bold=True)] if rows_above else []) + list(column.cells), 1
    ):
        if isinstance(content.value, str):
            cell = sheet.cell(line, number, _UNSEEN.sub("", content.value)[:_LONGEST])
            cell.data_type = "s"  # openpyxl would read =1+1 as a formula, and #N/A as an error
        elif content.value is not None:
            cell = sheet.cell(line, number, content.value)
            cell.number_format = content.form
        else:
            continue
        if content.link.startswith(("http://", "https://")) and len(content.link) < _LONGEST_LINK:
            cell.hyperlink = content.link
            cell.style = "Hyperlink"
        if content.is_bold:
            cell.font = Font(bold=True)


def _lay_out(sheet: Any, frozen: int) -> None:
    """Freeze the header and the first columns, and fit the widths of columns to their content."""
    from openpyxl.styles import Alignment
    from openpyxl.utils import get_column_letter

    sheet.freeze_panes = f"{get_column_letter(frozen + 1)}2"
    sheet.auto_filter.ref = sheet.dimensions
    for cell in sheet[1]:
        cell.alignment = Alignment(wrap_text=True, vertical="top")
    for number, column in enumerate(sheet.iter_cols(min_row=2), 1):
        widest = max((len(cell.value) for cell in column if isinstance(cell.value, str)), default=0)
        sheet.column_dimensions[get_column_letter(number)].width = min(max(widest + 2, _NARROWEST + 3), _WIDEST)
