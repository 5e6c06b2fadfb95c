"""Files of rows: CSV, TSV, JSON, JSONL, Parquet, CoNLL and plain text, without regard to what the columns mean."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.data.text_files import read_text
from mlflow_compress.errors import RecipeError, one_line

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TREEBANK = ".conllu"
TAGGED = frozenset({".conll", ".iob2", ".bio", TREEBANK})
LINES = frozenset({".jsonl", ".ndjson"})
PARQUET = ".parquet"
SUFFIXES = frozenset({*DELIMITERS, *TAGGED, *LINES, ".json", PARQUET})
TEXT = ".txt"
Unit = Literal["file", "paragraph", "line"]
_LONGEST_FIELD = 2**31 - 1
_HEAD, _LONG = 2**14, 2**20  # characters that a form is seen from
_ROWS = 20  # that a delimiter is seen from
_DELIMITERS = (";", "\t", "|", ",")
_EXCEL = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_SHEETS, _PACKED = frozenset({".xls", ".xlsx", ".ods"}), frozenset({".gz", ".zip", ".bz2", ".xz", ".zst", ".tar"})
_TREEBANK_COLUMNS = 8  # at least: CoNLL-X and CoNLL-U have ten
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
        file: the file that they are from, where it is one.
        doubled: names of several columns, which mean none.
    """

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any] | Bad]
    where: Callable[[int], str]
    folder: Path | None = None
    file: Path | None = None
    doubled: frozenset[str] = frozenset()


def read_table(path: Path, delimiter: str = "", quotes: bool = True, encoding: str = "") -> Records:
    """Read a file of rows by its suffix.

    Args:
        path: a `.csv`, `.tsv` or `.tab` file with a header, a `.json` file with a list of objects, a `.jsonl` or
            `.ndjson` file with one in each line, a `.parquet` file, or one of tagged sentences (see `read_tagged`).
        delimiter: what stands between the values of a CSV file; empty: what its suffix or its header says.
        quotes: whether a value of a CSV file may stand in double quotes, as in RFC 4180.
        encoding: see `read_text`.

    Raises:
        RecipeError: it is not readable as what its suffix says, naming the row.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        advice = " Save it as CSV." if suffix in _SHEETS else " Unpack it." if suffix in _PACKED else ""
        raise RecipeError(
            f"{path}: data is read from {', '.join(sorted({*SUFFIXES, TEXT}))} files, not from {suffix!r}.{advice}"
        )
    if suffix == PARQUET:
        return read_parquet(path)
    if suffix in TAGGED:
        return read_tagged(path, encoding)
    text = read_text(path, encoding)
    if suffix in DELIMITERS:
        return read_separated(path, text, delimiter, quotes)
    return read_objects(path, text)


def read_separated(path: Path, text: str, delimiter: str, quotes: bool) -> Records:
    """Read rows of CSV and its kin; row 1 is the header, and empty rows count.

    Args:
        path: where they are from.
        text: what stands there.
        delimiter: empty: what the first line says (`sep=;`, as Excel writes it), or what parts the header.
        quotes: as of `read_table`.

    Raises:
        RecipeError: quotes are open, naming the line.
    """
    said = _EXCEL.match(text)
    if said:
        delimiter, text = delimiter or said[1], text[said.end() :]
    delimiter = delimiter or _delimiter_of(text, DELIMITERS[path.suffix.lower()], quotes)
    csv.field_size_limit(_LONGEST_FIELD)
    lines = _reader(text, delimiter, quotes)
    first = 2 if said else 1
    try:
        header = tuple(name.strip() for name in next(lines, ()))
        rows = {number: line for number, line in enumerate(lines, first + 1) if line}
    except csv.Error as error:
        raise RecipeError(
            f"{path}, line {lines.line_num}: {error}. Mend the quotes, or say quotes=false if its quotes mean nothing."
        ) from error
    columns = tuple(dict.fromkeys(header))
    doubled = frozenset(name for name in columns if header.count(name) > 1)
    read = {number: _row(f"{path.name}, row {number}", header, line, delimiter) for number, line in rows.items()}
    return Records(columns, list(read.values()), _named(path, "row", read), path.parent, path, doubled)


def read_objects(path: Path, text: str) -> Records:
    """Read JSON: a list of objects, or one object in each line, whatever the file is called.

    Raises:
        RecipeError: it is neither, naming the item or line.
    """
    is_list = text.lstrip().startswith("[")
    is_lines = not is_list and (path.suffix.lower() in LINES or _starts_lines(text))
    if is_lines:
        lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
        objects = {number: _object(f"{path.name}, line {number}", line) for number, line in lines.items()}
    else:
        objects = _objects(path, text)
    where = _named(path, "line" if is_lines else "item", objects)
    return Records(_keys(objects), list(objects.values()), where, path.parent, path)


def read_parquet(path: Path) -> Records:
    """Read a file of Apache Parquet; numbers that Hugging Face has names for are called by them.

    Raises:
        RecipeError: it can't be read.
    """
    try:
        from pyarrow import parquet

        table = parquet.read_table(path)
        rows = table.to_pylist()
        about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ImportError, OSError, ValueError, RecursionError) as error:  # those of Arrow are ValueErrors and OSErrors
        raise RecipeError(f"{path} is not readable as Parquet: {one_line(error, 200)}") from error
    features = about.get("info", {}).get("features", {}) if isinstance(about, dict) else {}
    if isinstance(features, dict):
        named = {name: feature for name, feature in features.items() if _has_names(feature)}
        for row in rows:
            row.update({name: _called(row[name], feature) for name, feature in named.items() if name in row})
    columns = tuple(map(str, table.column_names))
    return Records(columns, rows, lambda index: f"{path.name}, row {index + 1}", path.parent, path)


def _has_names(feature: Any) -> bool:
    """Return whether a feature of Hugging Face's, or one within it, is of numbers that have names."""
    if isinstance(feature, dict):
        return isinstance(feature.get("names"), list) or any(map(_has_names, feature.values()))
    return isinstance(feature, list) and any(map(_has_names, feature))


def _called(value: Any, feature: Any) -> Any:
    """Return a value with its numbers, also those in lists and structures, called by the names of its feature."""
    inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
    if isinstance(inner, list) and inner:  # of a list, in older versions
        inner = inner[0]
    if isinstance(value, list):
        return [_called(part, inner) for part in value]
    if not isinstance(inner, dict):
        return value
    if isinstance(value, dict):
        return {name: _called(part, inner.get(name)) for name, part in value.items()}
    names = inner.get("names")
    if isinstance(names, list) and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value


def read_tagged(path: Path, encoding: str = "") -> Records:
    """Read sentences in the form of CoNLL-2003: a word in each line, its tag last, and a blank line between sentences.

    A `.conllu` file is a treebank: its second column is the word, its fourth the part of speech.

    Returns:
        For each sentence `words` and `tags`, as lists.

    Raises:
        RecipeError: it can't be read, is in another encoding, or is a treebank by another name.
    """
    part = _of_treebank if path.suffix.lower() == TREEBANK else str.split
    sentences: dict[int, Mapping[str, Any] | Bad] = {}
    words: dict[int, list[str]] = {}  # by line: a word, what else is said of it, its tag
    start = 1
    for number, line in enumerate([*read_text(path, encoding).split("\n"), ""], 1):
        if line.strip():
            words |= {number: columns} if (columns := part(line)) else {}
            continue
        if words:
            _require_no_treebank(path, start, list(words.values()))
        if words and next(iter(words.values()))[0] != _DOCUMENT:
            sentences[start] = _sentence(path, words)
        start, words = number + 1, {}
    return Records(("words", "tags"), list(sentences.values()), _named(path, "line", sentences), path.parent, path)


def _sentence(path: Path, words: Mapping[int, list[str]]) -> Mapping[str, Any] | Bad:
    for number, columns in words.items():
        if len(columns) < 2:
            return Bad(f"{path.name}, line {number}: there is a word without a tag, or a tag without a word.")
    return {"words": [columns[0] for columns in words.values()], "tags": [columns[-1] for columns in words.values()]}


def _require_no_treebank(path: Path, start: int, words: Sequence[list[str]]) -> None:
    are_numbers = [columns[0] for columns in words] == [str(place) for place in range(1, len(words) + 1)]
    if are_numbers and min(map(len, words)) >= _TREEBANK_COLUMNS:
        raise RecipeError(
            f"{path.name}, line {start}: the words are the numbers 1 to {len(words)}. Call CoNLL-U .conllu."
        )


def _of_treebank(line: str) -> list[str]:
    """Return the word and its part of speech in a line of CoNLL-U; nothing where it is no word of the text."""
    columns = line.split("\t")
    if not columns[0].isdecimal():
        return []
    return [columns[1], columns[3]] if len(columns) > 3 else [columns[0]]


def read_texts(paths: Sequence[Path], root: Path, column: str, unit: Unit = "file", encoding: str = "") -> Records:
    """Take text files as rows of one column.

    Args:
        paths: the files.
        root: the folder that their names in messages start from.
        column: the column's name.
        unit: whether a row is a file, a paragraph (parted by blank lines), or a line that is not blank.
        encoding: see `read_text`.

    Raises:
        RecipeError: a file is not UTF-8.
    """
    names = [path.relative_to(root).as_posix() for path in paths]
    if unit == "file":
        return Records((column,), [{column: path} for path in paths], names.__getitem__, root)
    found = [
        (f"{name}, {part}", text)
        for path, name in zip(paths, names, strict=True)
        for part, text in _parts(path, unit, encoding)
    ]
    return Records((column,), [{column: text} for _, text in found], lambda index: found[index][0], root)


def _named(path: Path, what: str, numbers: Iterable[int]) -> Callable[[int], str]:
    listed = list(numbers)
    return lambda index: f"{path.name}, {what} {listed[index]}"


def _reader(text: str, delimiter: str, quotes: bool) -> Any:
    lines = io.StringIO(text, newline="")
    if quotes:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _delimiter_of(text: str, usual: str, quotes: bool) -> str:
    """Return what parts most of the first rows as it parts the header, in the most columns; else the usual one.

    Where several do, what mostly has a blank behind it is the punctuation of texts: `LJ001-0001|Printing, in the only`.
    """
    best, most = usual, (0.5, False, 1)
    for delimiter in (usual, *_DELIMITERS):
        widths = _widths(text, delimiter, quotes)
        columns = widths[0] if widths else 1
        share = widths.count(columns) / max(len(widths), 1)
        is_terse = 2 * text.count(f"{delimiter} ", 0, _HEAD) <= text.count(delimiter, 0, _HEAD)
        if columns > 1 and share > 0.5 and (share, is_terse, columns) > most:
            best, most = delimiter, (share, is_terse, columns)
    return best


def _widths(text: str, delimiter: str, quotes: bool) -> list[int]:
    """Return how many values the first rows have, without what can't be read and without a row that is cut."""
    widths: list[int] = []
    with contextlib.suppress(csv.Error):
        widths.extend(len(row) for row in itertools.islice(_reader(text[:_HEAD], delimiter, quotes), _ROWS) if row)
    if len(text) > _HEAD and 1 < len(widths) < _ROWS:
        del widths[-1]
    return widths


def _row(where: str, header: Sequence[str], values: Sequence[str], delimiter: str) -> Mapping[str, Any] | Bad:
    if len(values) != len(header):
        advice = f" Put a value with {delimiter!r} in it in quotes." if len(values) > len(header) else ""
        return Bad(f"{where}: it has {len(values)} values, but there are {len(header)} columns.{advice}")
    return dict(zip(header, values, strict=True))


def _starts_lines(text: str) -> bool:
    """Return whether a file called .json holds several objects, one in each line."""
    lines = [line for line in text[:_LONG].split("\n") if line.strip()][:2]
    try:
        return len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _objects(path: Path, text: str) -> dict[int, Mapping[str, Any] | Bad]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not readable as JSON: {error}.") from error
    if isinstance(items, dict):
        items = _of_object(items)
    if not isinstance(items, list):
        raise RecipeError(f"{path}: this must be a list of objects, not {_kind(items)}.")
    return {number: _checked(f"{path.name}, item {number}", item) for number, item in enumerate(items, 1)}


def _of_object(whole: Mapping[str, Any]) -> Any:
    """Return the rows that an object holds: its only list, or its columns where all are lists of one length."""
    lists = [value for value in whole.values() if isinstance(value, list)]
    if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]) and lists[0]:
        return lists[0]
    if lists and len(lists) == len(whole) and len({len(values) for values in lists}) == 1:
        return [dict(zip(whole, values, strict=True)) for values in zip(*lists, strict=True)]
    return whole


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


def _parts(path: Path, unit: Unit, encoding: str) -> Iterator[tuple[str, str]]:
    lines = read_text(path, encoding).replace("\r\n", "\n").split("\n")
    if unit == "line":
        yield from ((f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
        return
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    yield from ((f"paragraph {number}", part) for number, part in enumerate(filter(str.strip, paragraphs), 1))
