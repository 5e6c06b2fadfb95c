"""`repository`: the pages, and which checks apply to them."""

from __future__ import annotations

import functools
from pathlib import Path

from website.markdown_page import MarkdownPage
from website.reference import filled

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_OUTSIDE_DOCS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")
_HISTORY = ("CHANGELOG.md",)  # it contains names from earlier versions


def paths() -> list[Path]:
    """Return every page that people read, relative to the repository."""
    inside = [path.relative_to(ROOT) for path in sorted(DOCS.rglob("*.md"))]
    return [*map(Path, _OUTSIDE_DOCS), *inside]


def is_history(path: Path) -> bool:
    """Return whether a page may contain names that the code no longer has."""
    return path.as_posix() in _HISTORY


@functools.cache
def page(path: Path) -> MarkdownPage:
    """Return a page with its generated parts."""
    return MarkdownPage(path, filled((ROOT / path).read_text(encoding="utf-8")))


@functools.cache
def written_page(path: Path) -> MarkdownPage:
    """Return a page as written, without its generated parts."""
    return MarkdownPage(path, (ROOT / path).read_text(encoding="utf-8"))
