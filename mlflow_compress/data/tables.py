"""Files of rows: CSV, TSV, JSON, JSONL, CoNLL and plain text, as they are, without regard to what the columns mean."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import RecipeError

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TAGGED = frozenset({".conll", ".iob2", ".bio"})
SUFFIXES = frozenset({*DELIMITERS, *TAGGED, ".json", ".jsonl"})
TEXT = ".txt"
Unit = Literal["file", "paragraph", "line"]
_LONGEST_FIELD = 2**31 - 1
_DOCUMENT = "-DOCSTART-"  # stands where a document begins, as if it were a sentence


class Bad(str):
    """A row that can't be read: the reason stands in its place."""

    __slots__ = ()


@dataclass(frozen=True)
class Records:
    """Rows with named columns.

    Attributes:
        columns: the names, in order.
        rows: values by column (of a row of JSON, maybe not all); a `Path` stands for what is in the file.
        where: names the row of an index in messages.
        folder: where names of files in it start; None where it can't name any.
    """

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any] | Bad]
    where: Callable[[int], str]
    folder: Path | None = None


def read_table(path: Path, delimiter: str = "", quotes: bool = True) -> Records:
    """Read a file of rows by its suffix.

    Args:
        path: a `.csv`, `.tsv` or `.tab` file with a header, a `.json` file with a list of objects, a `.jsonl` file
            with one in each line, or a `.conll`, `.iob2` or `.bio` file (see `read_tagged`); UTF-8, with or without a
            byte order mark.
        delimiter: what stands between the values of a CSV file, where it is not what its suffix says.
        quotes: whether a value of a CSV file may stand in double quotes, as in RFC 4180.

    Raises:
        RecipeError: it is not readable as what its suffix says, naming the row.
    """
    suffix = path.suffix.lower()
    if suffix in TAGGED:
        return read_tagged(path)
    text = read_text(path)
    if suffix in DELIMITERS:
        columns, rows = _rows(path, text, delimiter or DELIMITERS[suffix], quotes)
        return Records(columns, list(rows.values()), _named(path, "row", rows), path.parent)
    if suffix == ".json":
        objects = _objects(path, text)
        return Records(_keys(objects), list(objects.values()), _named(path, "item", objects), path.parent)
    if suffix == ".jsonl":
        lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
        objects = {number: _object(f"{path.name}, line {number}", line) for number, line in lines.items()}
        return Records(_keys(objects), list(objects.values()), _named(path, "line", objects), path.parent)
    raise RecipeError(f"{path}: data is read from {', '.join(sorted({*SUFFIXES, TEXT}))} files, not from {suffix!r}.")


def read_tagged(path: Path) -> Records:
    """Read sentences in the form of CoNLL-2003: a word in each line, its tag last, and a blank line between sentences.

    Returns:
        For each sentence `words` and `tags`, as lists.

    Raises:
        RecipeError: it can't be read, or is not UTF-8.
    """
    sentences: dict[int, Mapping[str, Any] | Bad] = {}
    start, lines = 1, [*read_text(path).split("\n"), ""]
    for number, line in enumerate(lines, 1):
        if line.strip():
            continue
        fields = [each.split() for each in lines[start - 1 : number - 1]]
        if fields and fields[0][0] != _DOCUMENT:
            untagged = next((index for index, each in enumerate(fields, start) if len(each) < 2), None)
            missing = Bad(f"{path.name}, line {untagged}: there is a word without a tag, or a tag without a word.")
            tagged = {"words": [each[0] for each in fields], "tags": [each[-1] for each in fields]}
            sentences[start] = tagged if untagged is None else missing
        start = number + 1
    return Records(("words", "tags"), list(sentences.values()), _named(path, "line", sentences), path.parent)


def read_texts(paths: Sequence[Path], root: Path, column: str, unit: Unit = "file") -> Records:
    """Take text files as rows of one column.

    Args:
        paths: the files.
        root: the folder that their names in messages start from.
        column: the column's name.
        unit: whether a row is a file, a paragraph (parted by blank lines), or a line that is not blank.

    Raises:
        RecipeError: a file is not UTF-8.
    """
    names = [path.relative_to(root).as_posix() for path in paths]
    if unit == "file":
        return Records((column,), [{column: path} for path in paths], names.__getitem__, root)
    found = [
        (f"{name}, {part}", text) for path, name in zip(paths, names, strict=True) for part, text in _parts(path, unit)
    ]
    return Records((column,), [{column: text} for _, text in found], lambda index: found[index][0], root)


def read_text(path: Path) -> str:
    """Read a file of UTF-8, with or without a byte order mark; ends of lines stay as they are.

    Raises:
        RecipeError: it can't be read, or is not UTF-8, naming the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path} can't be read: {error.strerror or error}.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}, line {line}: this is not UTF-8. Save the file as UTF-8.") from None


def _named(path: Path, what: str, numbers: Iterable[int]) -> Callable[[int], str]:
    listed = list(numbers)
    return lambda index: f"{path.name}, {what} {listed[index]}"


def _rows(
    path: Path, text: str, delimiter: str, quotes: bool
) -> tuple[tuple[str, ...], dict[int, Mapping[str, Any] | Bad]]:
    """Return the header, and the rows by their number; the header is row 1, and empty rows count."""
    csv.field_size_limit(_LONGEST_FIELD)
    plain = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if quotes else plain
    try:
        header = tuple(name.strip() for name in next(reader, ()))
        lines = {number: line for number, line in enumerate(reader, 2) if line}
    except csv.Error as error:
        raise RecipeError(
            f"{path}, line {reader.line_num}: {error}. Mend the quotes, or say quotes=false if its quotes mean nothing."
        ) from error
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise RecipeError(f"{path}: two columns are called {twice!r}. Rename one.")
    return header, {number: _row(f"{path.name}, row {number}", header, line) for number, line in lines.items()}


def _row(where: str, header: Sequence[str], values: Sequence[str]) -> Mapping[str, Any] | Bad:
    if len(values) != len(header):
        return Bad(f"{where}: it has {len(values)} values, but there are {len(header)} columns.")
    return dict(zip(header, values, strict=True))


def _objects(path: Path, text: str) -> dict[int, Mapping[str, Any] | Bad]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not readable as JSON: {error}.") from error
    if not isinstance(items, list):
        raise RecipeError(f"{path}: this must be a list of objects, not {_kind(items)}.")
    return {number: _checked(f"{path.name}, item {number}", item) for number, item in enumerate(items, 1)}


def _object(where: str, line: str) -> Mapping[str, Any] | Bad:
    try:
        return _checked(where, json.loads(line))
    except (ValueError, RecursionError) as error:
        return Bad(f"{where}: it is not readable as JSON: {error}.")


def _checked(where: str, item: Any) -> Mapping[str, Any] | Bad:
    return item if isinstance(item, dict) else Bad(f"{where}: it must be an object, not {_kind(item)}.")


def _kind(item: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(item), f"{item!r:.40}")


def _keys(objects: Mapping[int, Mapping[str, Any] | Bad]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for each in objects.values() if not isinstance(each, Bad) for key in each))


def _parts(path: Path, unit: Unit) -> Iterator[tuple[str, str]]:
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    if unit == "line":
        yield from ((f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
        return
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    yield from ((f"paragraph {number}", part) for number, part in enumerate(filter(str.strip, paragraphs), 1))
