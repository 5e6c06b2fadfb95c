"""`runnable`: finds the blocks that the tests run: those after the comment `<!-- run -->` or `<!-- run quick -->`.

The blocks of one page run in order in one empty folder. `quick` shortens every measurement of a block, so that it ends
in seconds; then its numbers mean nothing. Otherwise the block is run as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from website import repository
from website.complaints import Complaint

SHELLS, PYTHON = ("sh", "bash", "shell", "console"), "python"
QUICK = {"iterations": "2", "seconds": "0", "max_seconds": "1", "energy_seconds": "0", "launches": "1"}


@dataclass(frozen=True)
class Block:
    """A block that is run.

    Attributes:
        path: its page, relative to the repository.
        line: its first line.
        language: `python`, or one of `SHELLS`.
        code: the code to run.
        is_quick: whether its measurements are shortened.
    """

    path: Path
    line: int
    language: str
    code: str
    is_quick: bool


def blocks(path: Path) -> list[Block]:
    """Return the blocks of a page that are run, in their order."""
    return [
        Block(path, fence.line, fence.language, fence.text, fence.comment == "run quick")
        for fence in repository.written_page(path).fences
        if fence.comment in ("run", "run quick")
    ]


def complaints(path: Path) -> Iterator[Complaint]:
    """Check that all marked blocks can be run."""
    for fence in repository.written_page(path).fences:
        if fence.comment.split()[:1] != ["run"]:
            continue
        if fence.comment not in ("run", "run quick"):
            yield Complaint(path, fence.line, f"<!-- {fence.comment} --> is not a mark: write run, or run quick")
        elif fence.language not in (*SHELLS, PYTHON):
            yield Complaint(path, fence.line, f"a block of {fence.language or 'no language'} can't be run")
