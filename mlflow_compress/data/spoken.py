"""Transcripts of a folder of sounds without a table: lists of names and texts, and text files beside sounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_compress.data.data_files import data_files, find_file, index_files, lookup_name
from mlflow_compress.data.media import Sound
from mlflow_compress.data.tables import TEXT, Bad, Records
from mlflow_compress.data.text_files import read_text
from mlflow_compress.errors import RecipeError

_LIBRISPEECH = "*.trans.txt"
_KALDI = frozenset({"text", "transcript", "transcripts"})  # files without a suffix
_BETWEEN = re.compile(r"[\t|]")


def read_spoken(folder: Path, encoding: str) -> Records | None:
    """Read the transcripts of the sounds in a folder.

    They are in LibriSpeech's `*.trans.txt`, in a text file with the sound's name beside it, or in one file of any name
    whose lines have a sound's name and its text (`a.wav hello`, separated by a blank, a tab or `|`).

    Returns:
        A row for each line, or for each sound; None if the folder has no such files.

    Raises:
        RecipeError: there is more than one such list.
    """
    files = list(data_files(folder))
    sounds = sorted((path for path in files if path.suffix.lower() in Sound.suffixes), key=Path.as_posix)
    if lists := sorted(path for path in files if path.match(_LIBRISPEECH)):
        return _of_lists(folder, lists, encoding, None)
    texts = {path for path in files if path.suffix.lower() == TEXT}
    if any(path.with_suffix(TEXT) in texts for path in sounds):
        return _beside(folder, sounds, encoding)
    by_name = index_files(folder, Sound.suffixes, Sound.seldom_read)
    text_files = sorted({*texts, *(path for path in files if path.name.lower() in _KALDI)})
    lists = [path for path in text_files if _is_list(path, encoding, by_name)] if sounds else []
    if len(lists) == 1:
        return _of_lists(folder, lists, encoding, by_name)
    if lists:
        list_names = ", ".join(path.relative_to(folder).as_posix() for path in lists)
        raise RecipeError(f"{folder}: there are several lists of transcripts ({list_names}). Keep only one.")
    return None


def _of_lists(
    folder: Path, lists: Sequence[Path], encoding: str, by_name: Mapping[str, Sequence[Path]] | None
) -> Records:
    """Read lines with a sound's name and its text; find the sounds in `by_name`, or, if None, beside the list."""
    rows: list[Mapping[str, object] | Bad] = []
    places: list[str] = []
    for path in lists:
        for number, line in enumerate(read_text(path, encoding).split("\n"), 1):
            if not _split(line)[0]:
                continue
            location = f"{path.relative_to(folder).as_posix()}, line {number}"
            try:
                rows.append(_row(line, path.parent, by_name))
            except RecipeError as error:
                rows.append(Bad(f"{location}: {error}"))
            places.append(location)
    return Records(("audio", "text"), rows, places.__getitem__)


def _row(line: str, folder: Path, by_name: Mapping[str, Sequence[Path]] | None) -> Mapping[str, object]:
    """Return the sound that a line names, and its text.

    Raises:
        RecipeError: there is no such sound, there are several, or it is not clear which value is the text.
    """
    name, *texts = _split(line)
    if len(texts) > 1 and _BETWEEN.findall(line)[0] == "\t":
        raise RecipeError(
            f"it has {len(texts) + 1} values, and it is not clear which one is the text. Use a table with a header."
        )
    if by_name is not None:
        return {"audio": find_file(name, folder, by_name), "text": texts[-1]}
    for suffix in sorted(Sound.suffixes):
        if (sound := folder / f"{name}{suffix}").is_file():
            return {"audio": sound, "text": texts[-1]}
    raise RecipeError(f"there is no sound {name} ({', '.join(sorted(Sound.suffixes))}) beside it.")


def _beside(folder: Path, sounds: Sequence[Path], encoding: str) -> Records:
    places = [path.relative_to(folder).as_posix() for path in sounds]
    rows: list[Mapping[str, object] | Bad] = []
    for path, location in zip(sounds, places, strict=True):
        text = path.with_suffix(TEXT)
        try:
            missing = Bad(f"{location}: there is no {text.name} beside it.")
            rows.append({"audio": path, "text": read_text(text, encoding).strip()} if text.is_file() else missing)
        except RecipeError as error:
            rows.append(Bad(str(error)))
    return Records(("audio", "text"), rows, places.__getitem__)


def _is_list(path: Path, encoding: str, by_name: Mapping[str, Sequence[Path]]) -> bool:
    """Return whether the first line of a text file begins with the name of a sound."""
    try:
        lines = (line for line in read_text(path, encoding).split("\n") if line.strip())
    except RecipeError:  # an unrelated file
        return False
    name, *texts = _split(next(lines, ""))
    return any(texts) and lookup_name(Path(name).name) in by_name


def _split(line: str) -> list[str]:
    """Split a line into a name and its text; LJSpeech has three values, of which the last is the normalised text."""
    if (mark := _BETWEEN.search(line)) is None:
        name, _, text = line.strip().partition(" ")
        return [name, text.strip()]
    values = [value.strip() for value in line.split(mark[0])]
    while len(values) > 2 and not values[-1]:
        del values[-1]
    return values
