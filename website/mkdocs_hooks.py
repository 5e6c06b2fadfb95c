"""Hooks that MkDocs calls while it builds the site: they check all pages and fill in the generated parts.

A link to a file of the repository outside `docs/` leads to a page of the site that shows the file.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # MkDocs loads this file by its path

from website import links, reference, repository
from website.complaints import every_complaint
from website.repository_files import PREFIX, shown_file

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LOG = logging.getLogger("mkdocs.hooks.website")  # in strict mode a warning fails the build
_FOOTNOTE = re.compile(r"(?<=\s)\[(\d+)\](?=\s)")  # in one of our tables; Markdown would read two as a link
_TARGET = re.compile(r"(?<=\]\()(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_pre_build(config: MkDocsConfig) -> None:
    """Warn about broken links and names that the code does not have."""
    repository.page.cache_clear()  # `mkdocs serve` builds again in the same process
    repository.written_page.cache_clear()
    for complaint in every_complaint():
        _LOG.warning(str(complaint))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file of the repository that a page links to, and that page's own links."""
    from mkdocs.structure.files import File

    waiting = [path for path in repository.paths() if path.parts[0] == "docs"]
    added: set[Path] = set()
    while waiting:
        for target in _outside(waiting.pop()):
            if target not in added:
                added.add(target)
                files.append(File.generated(config, _page_of(target), content=shown_file(target)))
                if target.suffix == ".md":
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated parts, and point links out of `docs/` to the pages made for them."""
    source = page.file.src_uri
    path = (
        Path(source.removeprefix(PREFIX).removesuffix(".page.md"))
        if source.startswith(PREFIX)
        else Path("docs", source)
    )

    def moved_link(match: re.Match[str]) -> str:
        target = None if ":" in match["path"] else links.resolved(path, match["path"])
        if target is None or not (repository.ROOT / target).exists():
            return match[0]
        inside = target.relative_to("docs").as_posix() if target.parts[0] == "docs" else _page_of(target)
        return f"{'../' * source.count('/')}{inside}{match['anchor'] or ''}"

    return _TARGET.sub(moved_link, reference.filled(_FOOTNOTE.sub(r"\\[\1\\]", markdown)))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Set the language of a page."""
    return output.replace('<html lang="en"', '<html lang="ru"', 1) if page.file.src_uri == "ru.md" else output


def _outside(path: Path) -> Iterator[Path]:
    """Yield the files outside `docs/` that a page links to."""
    for link in repository.written_page(path).links:
        target = None if ":" in link.text else links.resolved(path, link.text.partition("#")[0])
        if target and target.parts[:1] != ("docs",) and (repository.ROOT / target).exists():
            yield target


def _page_of(target: Path) -> str:
    """Return the page of the site that shows a file of the repository, relative to `docs/`."""
    return f"{PREFIX}{target.as_posix()}.page.md" if target.suffix != ".md" else f"{PREFIX}{target.as_posix()}"
