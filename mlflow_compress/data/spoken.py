"""What is said in the sounds of a folder without a table: lists of names and texts, and texts beside sounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_compress.data.data_files import data_files, index_files, known_as
from mlflow_compress.data.media import Sound
from mlflow_compress.data.tables import TEXT, Bad, Records
from mlflow_compress.data.text_files import read_text
from mlflow_compress.errors import RecipeError

_LIBRISPEECH = "*.trans.txt"
_KALDI = frozenset({"text", "transcript", "transcripts"})  # files without a suffix
_PARTED = re.compile(r"\s*([^\t|]*?)\s*[\t|](?:.*[\t|])?\s*(.*)")  # of LJSpeech's three values, the last is spelled out


def read_spoken(folder: Path, encoding: str) -> Records | None:
    """Read what is said in the sounds of a folder.

    It is in LibriSpeech's `*.trans.txt`, or in a text file of a sound's name beside it, or in one file of lines with a
    sound's name and its text (`a.wav hello`, with a blank, a tab or `|` between them), whatever that is called.

    Returns:
        A row for each line, or for each sound; None where there is nothing of these.

    Raises:
        RecipeError: there is more than one such file.
    """
    files = list(data_files(folder))
    sounds = sorted((path for path in files if path.suffix.lower() in Sound.suffixes), key=Path.as_posix)
    if lists := sorted(path for path in files if path.match(_LIBRISPEECH)):
        return _of_lists(folder, lists, encoding, None)
    texts = {path for path in files if path.suffix.lower() == TEXT}
    if any(path.with_suffix(TEXT) in texts for path in sounds):
        return _beside(folder, sounds, encoding)
    by_name = index_files(folder, Sound.suffixes)
    others = sorted({*texts, *(path for path in files if path.name.lower() in _KALDI)})
    lists = [path for path in others if _is_list(path, encoding, by_name)] if sounds else []
    if len(lists) == 1:
        return _of_lists(folder, lists, encoding, by_name)
    if lists:
        named = ", ".join(path.relative_to(folder).as_posix() for path in lists)
        raise RecipeError(f"{folder}: there are several lists of what is said ({named}). Keep one.")
    return None


def _of_lists(
    folder: Path, lists: Sequence[Path], encoding: str, by_name: Mapping[str, Sequence[Path]] | None
) -> Records:
    """Read lines of a sound's name and its text; the sounds are found by name, or without names beside the list."""
    rows: list[Mapping[str, object] | Bad] = []
    places: list[str] = []
    for path in lists:
        for number, line in enumerate(read_text(path, encoding).split("\n"), 1):
            name, text = _parted(line)
            if not name:
                continue
            if by_name is None:
                beside = (path.parent / f"{name}{suffix}" for suffix in sorted(Sound.suffixes))
                sounds = [sound for sound in beside if sound.is_file()]
            else:
                sounds = list(by_name.get(known_as(Path(name).name), ()))
            place = f"{path.relative_to(folder).as_posix()}, line {number}"
            missing = Bad(f"{place}: there is no sound {name} ({', '.join(sorted(Sound.suffixes))}) beside it.")
            rows.append({"audio": sounds[0], "text": text} if sounds else missing)
            places.append(place)
    return Records(("audio", "text"), rows, places.__getitem__)


def _beside(folder: Path, sounds: Sequence[Path], encoding: str) -> Records:
    places = [path.relative_to(folder).as_posix() for path in sounds]
    rows: list[Mapping[str, object] | Bad] = [
        {"audio": path, "text": read_text(text, encoding).strip()}
        if (text := path.with_suffix(TEXT)).is_file()
        else Bad(f"{place}: there is no {text.name} beside it.")
        for path, place in zip(sounds, places, strict=True)
    ]
    return Records(("audio", "text"), rows, places.__getitem__)


def _is_list(path: Path, encoding: str, by_name: Mapping[str, Sequence[Path]]) -> bool:
    """Return whether the first line of a text file begins with the name of a sound."""
    try:
        lines = (line for line in read_text(path, encoding).split("\n") if line.strip())
    except RecipeError:  # another file, which is not meant
        return False
    name, text = _parted(next(lines, ""))
    return bool(text) and known_as(Path(name).name) in by_name


def _parted(line: str) -> tuple[str, str]:
    if parted := _PARTED.fullmatch(line.rstrip("\r")):
        return parted[1], parted[2].strip()
    name, _, text = line.strip().partition(" ")
    return name, text.strip()
