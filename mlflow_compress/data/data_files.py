"""The files below a folder that are data, without what editors and systems leave there unseen; found by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from mlflow_compress.errors import RecipeError
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


def find_file(name: str, folder: Path, index: Mapping[str, Sequence[Path]]) -> Path:
    """Find the file that a table means by a name: its path, or as much of it as makes it clear.

    Args:
        name: what the table says.
        folder: where the table is.
        index: what `index_files` gave for that folder.

    Raises:
        RecipeError: there is none, or there are several.
    """
    ways = (name, name.strip().replace("\\", "/"))  # as it is, and as Windows writes it
    for way in ways:
        if (path := folder / way).is_file():
            return path
    found = next((index[known] for way in ways if (known := known_as(Path(way).name)) in index), ())
    if len(found) > 1:
        asked = Path(name).name
        same = [path for path in found if path.name == asked] or [path for path in found if path.stem == asked]
        found = same or found
    if len(found) != 1:
        raise RecipeError(f"it names {name!r}, and there {'is no such file' if not found else 'are several'}.")
    return found[0]


def index_files(folder: Path, suffixes: Collection[str], seldom_read: Collection[str] = ()) -> dict[str, list[Path]]:
    """Return all files of some kinds below a folder, by name with and without suffix, as `find_file` finds them.

    Args:
        folder: the folder.
        suffixes: of the files.
        seldom_read: those of them that a name without a suffix does not mean where it may mean another file: the sound
            `a` is `a.wav`, and not the video `a.mp4` that it was taken from.
    """
    index: dict[str, list[Path]] = {}
    for path in sorted((path for path in data_files(folder) if path.suffix.lower() in suffixes), key=Path.as_posix):
        for name in (path.name, path.stem):
            index.setdefault(known_as(name), []).append(path)
    for name, paths in index.items():
        index[name] = [path for path in paths if path.suffix.lower() not in seldom_read] or paths
    return index


def known_as(name: str) -> str:
    """Return a file's name as it is found on any system: macOS parts letters from their marks, and knows no case."""
    return unicodedata.normalize("NFC", name).casefold()
