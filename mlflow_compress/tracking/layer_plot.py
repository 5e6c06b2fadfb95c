"""A picture of the parameters by type of layer, from the table that a variant's worker wrote."""

from __future__ import annotations

from mlflow_compress.plain_text import plain
from mlflow_compress.tracking import run_plots
from mlflow_compress.untrusted import Malformed, parse_json

_MOST_BYTES = 2**20
_MOST_KINDS = 15
_LONGEST_NAME = 40
_COLUMNS = 4


def layers_png(table: bytes, title: str) -> bytes | None:
    """Return a PNG of the parameters and the size of each type of layer; None if the table is not valid.

    Args:
        table: The content of `layers.json`, from an untrusted worker.
        title: The title of the picture.
    """
    rows = _rows(table)[:_MOST_KINDS]
    if not rows:
        return None
    figure = run_plots.new_figure(9, 1.4 + 0.32 * len(rows))
    figure.suptitle(title)
    parameters, sizes = figure.subplots(1, 2, sharey=True)
    names = [f"{name} ({count})" for name, count, _, _ in rows]
    for axes, column, label in ((parameters, 2, "parameters"), (sizes, 3, "MB in memory")):
        bars = axes.barh(names, [row[column] for row in rows], color="C0")
        axes.bar_label(bars, [f"{row[column]:,.4g}" for row in rows], padding=3, fontsize="small")
        axes.set(xlabel=label)
        axes.margins(x=0.25)
    parameters.invert_yaxis()
    return run_plots.png(figure)


def _rows(table: bytes) -> list[tuple[str, int, float, float]]:
    try:
        data = parse_json(table, "layers.json", _MOST_BYTES)
    except Malformed:
        return []
    rows = data.get("data") if isinstance(data, dict) else None
    valid: list[tuple[str, int, float, float]] = []
    for row in rows if isinstance(rows, list) else []:
        if not (isinstance(row, list) and len(row) == _COLUMNS):
            return []
        name, count, parameters, size = row
        numbers = (count, parameters, size)
        if not all(isinstance(number, (int, float)) and 0 <= number < 1e15 for number in numbers):
            return []
        valid.append((plain(str(name), _LONGEST_NAME).replace("$", r"\$"), int(count), parameters, size))
    return valid
