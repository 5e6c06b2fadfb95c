"""`links`: checks that every link inside the repository leads to a file that exists, and to an anchor in it."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from website import repository
from website.complaints import Complaint


def complaints(path: Path) -> Iterator[Complaint]:
    """Check the links of a page; links to other sites are not followed.

    Args:
        path: of the page, relative to the repository.
    """
    for link in repository.written_page(path).links:
        target = urlsplit(link.text)
        if target.scheme or target.netloc:
            continue
        if target.path.startswith("/"):
            yield Complaint(path, link.line, f"{link.text} is an absolute path: write it relative to this page")
            continue
        place = resolved(path, target.path)
        if place is None or not (repository.ROOT / place).exists():
            yield Complaint(path, link.line, f"{link.text} leads to no file of the repository")
        elif target.fragment and place.suffix == ".md" and target.fragment not in repository.page(place).anchors:
            yield Complaint(path, link.line, f"{link.text}: {place.as_posix()} has no anchor #{target.fragment}")


def resolved(page: Path, link: str) -> Path | None:
    """Return what a relative link names, relative to the repository; None where it leads out of it.

    Args:
        page: the page that has the link, relative to the repository.
        link: its path; empty for the page itself.
    """
    if not link:
        return page
    place = Path(os.path.normpath(page.parent / unquote(link)))
    return None if place.parts[:1] == ("..",) else place
