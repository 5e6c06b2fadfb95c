"""A picture of the confusion matrix that a variant's worker wrote."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mlflow_compress.plain_text import plain
from mlflow_compress.tracking import run_plots
from mlflow_compress.untrusted import Malformed, parse_json

_MOST_BYTES = 32 * 2**20
_MOST_CLASSES = 30
_MOST_WITH_NUMBERS = 15
_LONGEST_LABEL = 24


def confusion_png(table: bytes, title: str) -> bytes | None:
    """Return a PNG of a confusion matrix; None if the table is not valid. Of many classes, draw those most confused.

    Args:
        table: The content of `confusion_matrix.json`, from an untrusted worker.
        title: The title of the picture.
    """
    counts = _counts(table)
    if not counts:
        return None
    classes, is_all = _classes(counts)
    shares = [[counts[true, answer] / max(1, _total(counts, true)) for answer in classes] for true in classes]
    side = max(4.0, 2.2 + 0.32 * len(classes))
    figure = run_plots.new_figure(side + 1.2, side)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the reference's samples", shrink=0.8)
    labels = [_label(name) for name in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=90)
    axes.set_yticks(range(len(classes)), labels)
    axes.set(xlabel="prediction", ylabel="reference")
    axes.set_title(title if is_all else f"{title}: the {len(classes)} most confused classes", fontsize="medium")
    if len(classes) <= _MOST_WITH_NUMBERS:
        for row, true in enumerate(classes):
            for column, answer in enumerate(classes):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, str(counts[true, answer]), ha="center", va="center", color=colour)
    return run_plots.png(figure)


def _counts(table: bytes) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    try:
        data = parse_json(table, "confusion_matrix.json", _MOST_BYTES)
    except Malformed:
        return counts
    rows = data.get("data") if isinstance(data, dict) else None
    for row in rows if isinstance(rows, list) else []:
        if not (isinstance(row, list) and len(row) == len(("reference", "prediction", "samples"))):
            return Counter()
        if type(row[2]) is not int or not 0 <= row[2] <= 10**12:
            return Counter()
        counts[str(row[0]), str(row[1])] += row[2]
    return counts


def _classes(counts: Counter[tuple[str, str]]) -> tuple[list[str], bool]:
    """Return the classes to draw, in order, and whether they are all."""
    errors: Counter[str] = Counter()
    for (true, answer), count in counts.items():
        errors[true] += count * (true != answer)
        errors[answer] += count * (true != answer)
    drawn = [name for name, _ in errors.most_common(_MOST_CLASSES)]
    return sorted(drawn, key=_place), len(drawn) == len(errors)


def _place(name: str) -> tuple[Any, ...]:
    return (0, int(name), name) if name.isdecimal() and len(name) < _LONGEST_LABEL else (1, 0, name)


def _total(counts: Counter[tuple[str, str]], true: str) -> int:
    return sum(count for (reference, _), count in counts.items() if reference == true)


def _label(name: str) -> str:
    """Return a label without what matplotlib would read as mathematics."""
    return plain(name, _LONGEST_LABEL).replace("$", r"\$")
