"""Find data files below a folder, also by name, without files that editors and operating systems leave there."""

from __future__ import annotations

import contextlib
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
    """Return whether a path, relative to the data's folder, is not data, or lies in a folder that is not data.

    Such names begin with a dot (`.ipynb_checkpoints`, `._1.jpg`, `.DS_Store`), or macOS and Windows create them
    (`__MACOSX`, `Thumbs.db`).
    """
    return any(
        part.startswith(".") or part.lower() in _LEFT_BY_SYSTEMS for part in path.parts if part not in ("..", ".")
    )


def find_file(name: str, folder: Path, index: Mapping[str, Sequence[Path]]) -> Path:
    """Find the file that a table names, by its path or an unambiguous part of it.

    Args:
        name: the name in the table.
        folder: the table's folder.
        index: the result of `index_files` for that folder.

    Raises:
        RecipeError: there is none, or there are several.
    """
    spellings = (name, name.strip().replace("\\", "/"))  # as it is, and with Windows separators
    for spelling in spellings:
        if is_file(path := folder / spelling):
            return path
    matches = next((index[key] for spelling in spellings if (key := lookup_name(Path(spelling).name)) in index), ())
    if len(matches) > 1:
        file_name = Path(name).name
        exact = [path for path in matches if path.name == file_name]
        matches = exact or [path for path in matches if path.stem == file_name] or matches
    if len(matches) != 1:
        raise RecipeError(f"it names {name!r}, but there {'is no such file' if not matches else 'are several'}.")
    return matches[0]


def is_file(path: Path) -> bool:
    """Return whether a file exists; no file has a name that is longer than the system allows."""
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


def index_files(folder: Path, suffixes: Collection[str], seldom_read: Collection[str] = ()) -> dict[str, list[Path]]:
    """Return all files of some kinds below a folder, by name with and without suffix, as `find_file` finds them.

    Args:
        folder: the folder.
        suffixes: suffixes of the files.
        seldom_read: suffixes that a name without a suffix means only if there is no other file: the sound `a` is
            `a.wav`, not the video `a.mp4` that it was taken from.
    """
    index: dict[str, list[Path]] = {}
    for path in sorted((path for path in data_files(folder) if path.suffix.lower() in suffixes), key=Path.as_posix):
        for name in (path.name, path.stem):
            index.setdefault(lookup_name(name), []).append(path)
    for name, paths in index.items():
        index[name] = [path for path in paths if path.suffix.lower() not in seldom_read] or paths
    return index


def lookup_name(name: str) -> str:
    """Normalise a file's name, so that it is found on any system: macOS decomposes letters and ignores case."""
    return unicodedata.normalize("NFC", name).casefold()
