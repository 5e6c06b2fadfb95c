"""`complaints`: all errors in the pages. The tests and `mkdocs build --strict` both fail on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Complaint:
    """An error on a page.

    Attributes:
        path: the page, relative to the repository.
        line: its line, from 1.
        message: the error.
    """

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        """Return it as compilers write it: `docs/index.md:3: message`."""
        return f"{self.path.as_posix()}:{self.line}: {self.message}"


def every_complaint() -> Iterator[Complaint]:
    """Check all pages: links and anchors, and names of the code."""
    from website import links, names, repository

    for path in repository.paths():
        yield from links.complaints(path)
        if not repository.is_history(path):
            yield from names.complaints(repository.written_page(path))
