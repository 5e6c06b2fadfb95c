"""`tables`: Markdown tables whose cells may hold any text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`+[^`]*`+)")
_SPECIAL = re.compile(r"([*<_\[\]])")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for the site. Cells are Markdown; only what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def prose(text: str) -> str:
    """Return text of the code as one line of Markdown: outside of backticks every character stands for itself."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if at % 2 else _SPECIAL.sub(r"\\\1", part) for at, part in enumerate(parts))


def code(text: object) -> str:
    """Return text as code; nothing for an empty one."""
    return f"`{text}`" if str(text) else ""


def _cell(text: str) -> str:
    """Escape the end of a cell. The site's Markdown does not see it in code, where it would show the backslash."""
    parts = _CODE.split(text)
    return "".join(part if at % 2 else part.replace("|", "\\|") for at, part in enumerate(parts))
