"""Shows a result and a comparison as small tables in a notebook, and as plain text."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlflow_compress.plain_text import visible
from mlflow_compress.records import Comparison, Result, finite
from mlflow_compress.reporting import table_text
from mlflow_compress.reporting.edited_table import as_markdown

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 60  # the limit of pandas
_READ = (
    "size/weights_mib", "size/params", "latency_p50_ms", "latency_p90_ms", "first_call_ms", "throughput_per_s",
    "ram_peak_mib", "vram_peak_mib",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class ShownResult(Result):
    """A result that shows itself as a table of the main numbers; it holds all numbers and samples as any other."""

    @classmethod
    def of(cls, result: Result) -> ShownResult:
        """Return a result that shows itself."""
        return cls(**{field.name: getattr(result, field.name) for field in dataclasses.fields(Result)})

    def __eq__(self, other: object) -> bool:
        """Return whether both results have the same content, however they show it."""
        names = [field.name for field in dataclasses.fields(Result)]
        return isinstance(other, Result) and all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]  # like all results: they hold dictionaries

    def __repr__(self) -> str:
        """Return the table as text."""
        title, *lines = self._lines()
        width = max((len(name) for name, _ in lines), default=0)
        table = [f"  {what.ljust(width)}  {value}" for what, value in lines]
        return "\n".join([": ".join(filter(None, title)), *table, *(f"  {remark}" for remark in self._remarks())])

    def _repr_html_(self) -> str:
        title, *lines = self._lines()
        head = f"<caption>{html.escape(': '.join(filter(None, title)))}</caption>"
        body = "".join(
            f'<tr><td style="text-align:left">{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
            for name, value in lines
        )
        remarks = "".join(f"<li>{html.escape(text)}</li>" for text in self._remarks())
        return f"<table>{head}{body}</table>" + (f"<ul>{remarks}</ul>" if remarks else "")

    def _lines(self) -> list[tuple[str, str]]:
        """Return the title, and the name and text of each main number."""
        title = visible(f"{self.variant.model}, {self.variant.method}"), "" if self.status == "ok" else self.status
        numbers = finite(self.measurements)
        names = [
            name
            for wanted_name in _READ
            for name in numbers
            if name == wanted_name or name.partition("/")[2] == wanted_name
        ]
        lines = [
            (
                table_text.label(name, "en"),
                f"{numbers[name]:,.0f}" if name == "size/params" else
                table_text.megabytes(numbers[name]) if table_text.is_size(name) else table_text.number(numbers[name]),
            )
            for name in names
        ]  # fmt: skip
        return [title, *lines]

    def _remarks(self) -> list[str]:
        reason = [visible(self.reason)] if self.reason else []
        return reason + [visible(f"caution: {caution.message}") for caution in self.cautions]


def shown_frame(lines: Sequence[Mapping[str, object]], columns: Sequence[str], comparison: Comparison) -> pd.DataFrame:
    """Return a data frame of all numbers that shows itself as the table of the comparison.

    Frames made from it (`table[...]`, `table.head()`) are ordinary data frames.

    Args:
        lines: the rows of the data frame.
        columns: the columns of the data frame.
        comparison: what it shows: the first rows, the table's columns with at least one value, and the footnotes.
    """
    import pandas as pd

    short = replace(_read_columns(comparison), rows=comparison.rows[:_MOST_ROWS])
    cut = f"the first {_MOST_ROWS} of " if len(lines) > _MOST_ROWS else ""
    size = f"{cut}{len(lines)} rows; the data frame has {len(columns)} columns, see .columns"
    blocks = as_markdown(short).split("\n\n")
    text = "\n\n".join([*blocks[: 2 if short.footnotes else 1], f"[{size}]"])  # the table, and its footnotes

    class Table(pd.DataFrame):  # type: ignore[misc]  # pandas has no types here
        def __repr__(self) -> str:
            return text

        def _repr_html_(self) -> str:
            return f"{_as_html(short)}<p>{size}</p>"

    return Table(lines, columns=list(columns))


def _as_html(comparison: Comparison) -> str:
    """Return the table as HTML, with names aligned to the left, and its footnotes."""
    columns = table_text.columns(comparison.columns, comparison.metrics)
    noted = next((index for index, column in enumerate(columns) if column.key == "method"), 0)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table_text.headers(columns, comparison.language))
    lines = []
    for row in comparison.rows:
        texts = list(table_text.cells(row, columns, comparison.language, comparison.metrics))
        texts[noted] = " ".join([texts[noted], *(f"[{note + 1}]" for note in row.notes)])
        cells = (
            f"<td>{html.escape(visible(text))}</td>" if column.numeric else
            f'<td style="text-align:left">{html.escape(visible(text))}</td>'
            for column, text in zip(columns, texts, strict=True)
        )  # fmt: skip
        lines.append(f"<tr>{''.join(cells)}</tr>")
    notes = "<br>".join(
        f"[{number}] {html.escape(visible(note))}" for number, note in enumerate(comparison.footnotes, 1)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return table + (f"<p>{notes}</p>" if notes else "")


def _read_columns(comparison: Comparison) -> Comparison:
    """Return a comparison with only those of its table's columns that have a value in some row."""
    all_columns = table_text.columns(comparison.columns, comparison.metrics)
    rows = [table_text.cells(row, all_columns, comparison.language, comparison.metrics) for row in comparison.rows]
    keys = [
        column.key for index, column in enumerate(all_columns) if any(row[index] != table_text.MISSING for row in rows)
    ]
    return replace(comparison, columns=tuple(keys) or comparison.columns)
