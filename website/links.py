"""`links`: checks that every link inside the repository leads to an existing file and anchor."""

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
        path: path of the page, relative to the repository.
    """
    for link in repository.written_page(path).links:
        target = urlsplit(link.text)
        if target.scheme or target.netloc:
            continue
        if target.path.startswith("/"):
            yield Complaint(path, link.line, f"{link.text} is an absolute path: write it relative to this page")
            continue
        target_path = resolved(path, target.path)
        if target_path is None or not (repository.ROOT / target_path).exists():
            yield Complaint(path, link.line, f"{link.text} leads to no file of the repository")
        elif (
            target.fragment
            and target_path.suffix == ".md"
            and target.fragment not in repository.page(target_path).anchors
        ):
            yield Complaint(path, link.line, f"{link.text}: {target_path.as_posix()} has no anchor #{target.fragment}")


def resolved(page: Path, link: str) -> Path | None:
    """Return the target of a relative link, relative to the repository; None if it is outside.

    Args:
        page: the page that has the link, relative to the repository.
        link: its path; empty for the page itself.
    """
    if not link:
        return page
    path = Path(os.path.normpath(page.parent / unquote(link)))
    return None if path.parts[:1] == ("..",) else path
