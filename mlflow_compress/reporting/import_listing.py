"""Says in plain text what would be stored of hand-made tables."""

from __future__ import annotations

from mlflow_compress.plain_text import unbroken
from mlflow_compress.reporting.hand_made_rows import Import

_WITHOUT = {"missing": "no number", "unread": "not read"}


def listing(found: Import) -> str:
    """Say in plain text what would be stored, what could not be read, and what was passed over."""
    blocks = [f"{found.source}: {_count(len(found.rows), 'row')} to store"]
    for row in found.rows:
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
    for title, several in (
        ("Not read; the text is kept with the run", found.unread),
        ("Read, but look at it", found.doubtful),
    ):
        if several:
            blocks.append("\n".join([f"{title}:", *(f"  {each.told}" for each in several)]))
    if found.passed_over:
        lines = [f"  line {line}, {what}: {why}" for line, what, why in found.passed_over]
        blocks.append("\n".join(["Passed over:", *lines]))
    return "\n\n".join(blocks) + "\n"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
