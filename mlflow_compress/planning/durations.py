"""Durations as people write and read them: `90s`, `1h30m`; `2 min 5 s`."""

from __future__ import annotations

import re

_WRITTEN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)
_SECONDS = (3600, 60, 1)


def seconds(text: str) -> float:
    """Parse a duration: `90s`, `30m`, `2h`, `1h30m`.

    Raises:
        ValueError: it is not a duration, or it is 0.
    """
    match = _WRITTEN.fullmatch(text.strip().lower().replace(" ", ""))
    total = sum(float(part) * unit for part, unit in zip(match.groups(), _SECONDS, strict=True) if part) if match else 0
    if not 0 < total < float("inf"):
        raise ValueError(f"{text!r} is not a valid duration. Write 90s, 30m, 2h or 1h30m.")
    return float(total)


def words(length: float) -> str:
    """Format a duration in seconds with at most two units."""
    minutes, seconds = divmod(round(length), 60)
    if minutes >= 60:
        hours, minutes = divmod(round(length / 60), 60)
        return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
    if minutes:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    return f"{seconds} s"
