"""CSV: one line per row with every digit, for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.records import Comparison, finite
from mlflow_compress.reporting.table_text import ordered
from mlflow_compress.sockets import Renderer

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


@dataclass
class Csv(Renderer):
    """UTF-8, commas, a header line, text in double quotes, unrounded numbers; a missing number is empty.

    Columns: `team`, `model`, `method`; the table's metrics by name, always there and in this order; all other metrics
    that any row has, sorted; `run_id_cpu`, `run_id_gpu` (and other measured devices); `hardware`; `by_hand`, `yes`
    where the numbers were written by hand; `pareto`, `best` or `dominated` where it was requested; `notes`,
    the row's footnotes. Failures are not listed here: see the Markdown and JSON formats.

    A spreadsheet would run a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a formula: it gets
    a leading apostrophe; a text that begins with an apostrophe gets another one. To read a text back, remove one
    leading apostrophe.
    """

    suffix: ClassVar[str] = ".csv"

    def render(self, comparison: Comparison) -> bytes:
        """Return the rows as UTF-8 CSV."""
        metrics = ordered(name for row in comparison.rows for name in row.values)
        devices = sorted({"cpu", "gpu"}.union(*(row.runs for row in comparison.rows)))
        runs = [f"run_id_{device}" for device in devices]
        names = ["team", "model", "method", *metrics, *runs, "hardware", "by_hand", "pareto", "notes"]
        buffer = io.StringIO(newline="")
        table = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        table.writerow([_harmless(name) for name in names])
        for row in comparison.rows:
            values = finite(row.values)
            texts = [row.team, row.model, row.method]
            ids = [row.runs.get(device, "") for device in devices]
            notes = "; ".join(comparison.footnotes[note] for note in row.notes)
            numbers = [values.get(name, "") for name in metrics]
            rank = "" if row.dominated is None else "dominated" if row.dominated else "best"
            circumstances = [row.hardware, "yes" if row.by_hand else "", rank, notes]
            table.writerow([*map(_harmless, texts), *numbers, *map(_harmless, [*ids, *circumstances])])
        return buffer.getvalue().encode("utf-8", errors="backslashreplace")


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
