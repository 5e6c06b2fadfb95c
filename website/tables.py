"""`tables`: Markdown tables whose cells may hold any text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`+[^`]*`+)")
_SPECIAL = re.compile(r"([*<_\[\]])")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for the site. Cells are Markdown; only characters that would end a cell are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def prose(text: str) -> str:
    """Return text from the code as one line of Markdown; outside backticks, special characters are escaped."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))


def code(text: object) -> str:
    """Return text as code; empty if the text is empty."""
    return f"`{text}`" if str(text) else ""


def _cell(text: str) -> str:
    """Escape the end of a cell, but not in code: there the site's Markdown would show the backslash."""
    parts = _CODE.split(text)
    return "".join(part if index % 2 else part.replace("|", "\\|") for index, part in enumerate(parts))
