"""Lists as plain text what would be stored of hand-made tables."""

from __future__ import annotations

from mlflow_compress.plain_text import unbroken
from mlflow_compress.reporting.hand_made_rows import Import

_WITHOUT = {"missing": "no number", "unread": "not read"}


def listing(tables: Import) -> str:
    """Return what would be stored, what could not be read, and what is ignored, as plain text."""
    blocks = [f"{tables.source}: {_count(len(tables.rows), 'row')} to store"]
    for row in tables.rows:
        lines = [f"line {row.line}: {row.model} / {row.method}" + (f" (team {row.team})" if row.team else "")]
        for reading in row.readings:
            lines += [
                f"  {name} = {value:.12g}   <- {reading.header}: {unbroken(reading.text)}"
                for name, value in reading.metrics.items()
            ]
            lines += [f"  {name}: {text}   <- {reading.header}: {unbroken(reading.text)}" for name, text in
                      sorted(reading.environment.items())]  # fmt: skip
            if reading.fate in _WITHOUT:
                lines.append(f"  {_WITHOUT[reading.fate]}   <- {reading.header}: {unbroken(reading.text)}".rstrip())
        blocks.append("\n".join(lines))
    for title, readings in (
        ("Not read; the text is kept with the run", tables.unread),
        ("Read, but please check", tables.doubtful),
    ):
        if readings:
            blocks.append("\n".join([f"{title}:", *(f"  {reading.remark}" for reading in readings)]))
    if tables.ignored:
        lines = [f"  line {line}, {ignored_part}: {why}" for line, ignored_part, why in tables.ignored]
        blocks.append("\n".join(["Ignored:", *lines]))
    return "\n\n".join(blocks) + "\n"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
