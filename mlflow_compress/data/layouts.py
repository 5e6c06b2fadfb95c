"""Folders of labelled data: files beside a table that names them, LibriSpeech's transcripts, sub-folders as labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.data.columns import usual_column
from mlflow_compress.data.data_files import data_files, find_file, index_files, is_leftover
from mlflow_compress.data.keys import Kind
from mlflow_compress.data.media import Medium, Picture, Sound
from mlflow_compress.data.spoken import read_spoken
from mlflow_compress.data.tables import (
    DELIMITERS,
    PARQUET,
    SUFFIXES,
    TAGGED,
    TEXT,
    Bad,
    Records,
    Unit,
    read_table,
    read_tagged,
    read_texts,
)
from mlflow_compress.errors import RecipeError

MEDIA: Mapping[str, type[Medium]] = {"audio": Sound, "image": Picture}
_TRAINING = frozenset({"train", "training"})
_SPLITS = (
    frozenset({"test", "testing", "eval", "evaluation"}),
    _TRAINING,
    frozenset({"validation", "valid", "val", "dev"}),
)
_TABLES = ("metadata", "transcripts", "transcript", "transcriptions", "labels", "annotations", "manifest")


@dataclass(frozen=True)
class Form:
    """How to read a data set's files.

    Attributes:
        split: the requested split.
        delimiter, quotes: as in `tables.read_table`.
        unit: as in `tables.read_texts`.
        encoding: as in `tables.read_text`.
    """

    split: str
    delimiter: str = ""
    quotes: bool = True
    unit: Unit = "file"
    encoding: str = ""


class MissingSplit(RecipeError):  # noqa: N818  (the name is clear without a suffix)
    """The data has splits, but not the requested one."""


def read_path(path: Path, roles: Sequence[str], form: Form) -> tuple[Records, bool]:
    """Read a file of rows or of text, or a folder that contains one or has a known layout.

    If sub-folders (`test/`) or tables (`test.csv`) divide a folder into splits, read one of them.

    Returns:
        The rows, and whether they are one split of several.

    Raises:
        RecipeError: there is no such split, nothing that can be read, or it is not clear which table to read.
    """
    if path.is_dir():
        return _read_folder(path, roles, form)
    if path.suffix.lower() == TEXT and "tags" in roles:
        return read_tagged(path, form.encoding), False
    if path.suffix.lower() == TEXT:
        return read_texts([path], path.parent, _only_role(path, roles), form.unit, form.encoding), False
    return with_header(read_table(path, form.delimiter, form.quotes, form.encoding), roles), False


def kind_of(records: Records) -> Kind:
    """Return the kind of a local source by what `read_path` read from it."""
    if records.file is not None:
        suffix = records.file.suffix.lower()
        if suffix == PARQUET:
            return "parquet"
        return "separated" if suffix in DELIMITERS else "tagged" if suffix in (*TAGGED, TEXT) else "json"
    if "label" in records.columns:
        return "labelled"
    return "sounds" if "audio" in records.columns else "texts"


def with_header(records: Records, roles: Sequence[str]) -> Records:
    """Treat the header of a table as its first row if it names a sound or picture.

    Then the first column is the file, and the last column its label or text (as in LJSpeech).
    """
    medium = next((role for role in roles if role in MEDIA), None)
    labels = [role for role in roles if role not in MEDIA]
    if medium is None or records.file is None or records.folder is None or len(labels) > 1 or len(records.columns) < 2:
        return records
    if records.file.suffix.lower() not in DELIMITERS or usual_column(medium, records.columns) is not None:
        return records
    kind = MEDIA[medium]
    try:
        find_file(records.columns[0], records.folder, index_files(records.folder, kind.suffixes, kind.seldom_read))
    except RecipeError:
        return records
    columns = {medium: records.columns[0], **dict.fromkeys(labels, records.columns[-1])}
    rows_below = (
        row if isinstance(row, Bad) else {role: row[column] for role, column in columns.items()} for row in records.rows
    )
    rows: list[Mapping[str, object] | Bad] = [columns, *rows_below]
    first, where = f"{records.file.name}, row 1", records.where
    return Records(
        tuple(columns), rows, lambda index: where(index - 1) if index else first, records.folder, records.file
    )


def is_training(split: str) -> bool:
    """Return whether a split is for training, by its name."""
    return bool(_TRAINING & _words(split))


def find_split(names: Sequence[str], split: str, of: object) -> str | None:
    """Return the name that contains a split or a synonym of it (`test-clean`, `imdb_test`).

    Returns:
        The name; None if no name contains it, and not all names are names of splits.

    Raises:
        RecipeError: several names contain it.
        MissingSplit: no name contains it, but all are names of splits.
    """
    if split in names:
        return split
    synonyms = _synonyms(split)
    matches = [name for name in names if synonyms & _words(name)]
    if len(matches) == 1:
        return matches[0]
    all_splits = frozenset.union(*_SPLITS)
    listing = f"Use one of {', '.join(f'split={name}' for name in matches or names)}."
    if matches:
        raise RecipeError(f"{of} has several splits that could be {split!r}. {listing}")
    if names and all(all_splits & _words(name) for name in names):
        raise MissingSplit(f"{of} has no split {split!r}. {listing}")
    return None


def _read_folder(folder: Path, roles: Sequence[str], form: Form) -> tuple[Records, bool]:
    section = find_split([path.name for path in _within(folder, _is_section)], form.split, folder)
    is_split, folder = section is not None, folder / (section or "")
    medium = next((role for role in roles if role in MEDIA), None)
    tables = [path for path in _within(folder, Path.is_file) if path.suffix.lower() in SUFFIXES]
    if not tables and medium is None and (_is_package(folder) or not _below(folder, {TEXT})):
        tables = _below(folder, SUFFIXES)
    if tables:
        stem = find_split([path.stem for path in tables], form.split, folder)
        table = _one_of([path for path in tables if path.stem == stem] or tables, folder)
        records = read_table(table, form.delimiter, form.quotes, form.encoding)
        return with_header(records, roles), is_split or stem is not None
    if medium == "audio" and (spoken_records := read_spoken(folder, form.encoding)) is not None:
        return spoken_records, is_split
    if medium == "audio" and "text" in roles:
        sounds = len(_below(folder, Sound.suffixes))
        raise RecipeError(
            f"{folder}: there are {sounds} sounds in it, but no transcripts. Add a table (.csv, .tsv, .jsonl) with the "
            "columns file and text, or a.txt beside a.wav."
        )
    if medium is None and "label" not in roles:
        role, paths = _only_role(folder, roles), _below(folder, {TEXT})
        if not paths:
            raise RecipeError(f"{folder}: there is no {', '.join(sorted({*SUFFIXES, TEXT}))} file in it.")
        return read_texts(paths, folder, role, form.unit, form.encoding), is_split
    role = medium or _only_role(folder, [role for role in roles if role != "label"])
    return _labelled_by_folder(folder, role, "label" in roles), is_split


def _synonyms(split: str) -> frozenset[str]:
    return next((group for group in _SPLITS if split in group), frozenset({split}))


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W_]+", name.lower()))


def _one_of(tables: Sequence[Path], folder: Path) -> Path:
    """Return the only table, or the only one with a usual name."""
    for candidates in (tables, [path for path in tables if path.stem.lower() in _TABLES]):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(path.relative_to(folder).as_posix() for path in tables[:10])
    raise RecipeError(f"{folder}: there are several tables ({names}). Give the path of one of them.")


def _only_role(path: Path, roles: Sequence[str]) -> str:
    if len(roles) != 1:
        raise RecipeError(f"{path}: text files have no labels, but {', '.join(roles)} are needed. Use a CSV file.")
    return roles[0]


def _labelled_by_folder(folder: Path, role: str, is_labelled: bool) -> Records:
    """Return files as rows; the sub-folder of a file is its label."""
    suffixes = MEDIA[role].suffixes if role in MEDIA else {TEXT}
    paths = _below(folder, suffixes)
    if not paths:
        raise RecipeError(
            f"{folder}: there is no table ({', '.join(sorted(SUFFIXES))}) in it, and no {', '.join(sorted(suffixes))} "
            "file in sub-folders named after labels."
        )
    names = [path.relative_to(folder) for path in paths]
    rows: list[Mapping[str, object] | Bad] = [
        {role: path, "label": unicodedata.normalize("NFC", name.parts[0])}
        if len(name.parts) > 1 or not is_labelled
        else Bad(f"{name}: it is not in a sub-folder named after its label, and there is no table.")
        for path, name in zip(paths, names, strict=True)
    ]
    return Records((role, "label"), rows, lambda index: names[index].as_posix())


def _is_section(path: Path) -> bool:
    return path.is_dir() and not _is_package(path)  # a package's folder `tests` is not a split


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").exists()


def _within(folder: Path, kind: Callable[[Path], bool]) -> list[Path]:
    paths = (path for path in folder.iterdir() if not path.name.startswith("__"))
    return sorted(path for path in paths if kind(path) and not is_leftover(path.relative_to(folder)))


def _below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted((path for path in data_files(folder) if path.suffix.lower() in suffixes), key=Path.as_posix)
