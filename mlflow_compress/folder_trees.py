"""List (`files_below`) and `remove` deeply nested folders. Python's own functions recurse, and fail on them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

MOST_DEPTH = 100  # nested folders: the longest path, 4096 characters, hardly allows more
_STEP = 8  # nested folders whose names of 255 characters still make a usable path


def _refuse(folder: Path) -> None:
    raise OSError(errno.ENAMETOOLONG, f"there are more than {MOST_DEPTH} nested folders", str(folder))


def files_below(folder: Path, too_deep: Callable[[Path], None] = _refuse) -> Iterator[Path]:
    """Yield the files in a folder and below it, in order; links to folders are not followed.

    Args:
        folder: The folder.
        too_deep: Called with a folder that is below `MOST_DEPTH` others, and is left out.

    Raises:
        OSError: A folder is nested too deeply, unless `too_deep` allows it, or can't be read.
    """
    waiting = [(folder, 0)]
    while waiting:
        top, depth = waiting.pop()
        try:
            with os.scandir(top) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            too_deep(top)
            continue
        yield from (Path(entry.path) for entry in ordered if entry.is_file())
        subfolders = [Path(entry.path) for entry in ordered if entry.is_dir(follow_symlinks=False)]
        if subfolders and depth == MOST_DEPTH:
            too_deep(subfolders[0])
        else:
            waiting += [(path, depth + 1) for path in reversed(subfolders)]


def remove(folder: Path) -> None:
    """Delete a folder with its content, as far as the system allows."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir() and not folder.is_symlink():
        with contextlib.suppress(OSError):
            _flatten(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _flatten(folder: Path) -> None:
    """Move deeply nested folders up to the top."""
    waiting, moved = [(folder, 0)], 0
    while waiting:
        top, depth = waiting.pop()
        with os.scandir(top) as entries:
            subfolders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in subfolders:
            if depth < _STEP:
                waiting.append((path, depth + 1))
                continue
            moved += 1
            raised = folder / f"deep-{os.getpid()}-{moved}"
            path.rename(raised)
            waiting.append((raised, 1))
