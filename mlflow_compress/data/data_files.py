"""The files below a folder that are data: without those that editors and systems leave there unseen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

from mlflow_compress.folder_trees import files_below

_LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})


def data_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it, in order, without those that `is_leftover`."""
    return (path for path in files_below(folder) if not is_leftover(path.relative_to(folder)))


def is_leftover(path: PurePath) -> bool:
    """Return whether a path, as seen from the data's folder, is no data, or lies in a folder that is none.

    That is what begins with a dot (`.ipynb_checkpoints`, `._1.jpg`, `.DS_Store`), and what macOS and Windows call
    otherwise (`__MACOSX`, `Thumbs.db`).
    """
    return any(
        part.startswith(".") or part.lower() in _LEFT_BY_SYSTEMS for part in path.parts if part not in ("..", ".")
    )
