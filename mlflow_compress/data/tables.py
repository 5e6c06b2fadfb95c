"""Files of rows: CSV, TSV, JSON, JSONL, Parquet, CoNLL and plain text; columns have no meaning here."""

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

from mlflow_compress.data.documents import documents
from mlflow_compress.data.text_files import read_text
from mlflow_compress.errors import RecipeError, one_line

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TREEBANK = ".conllu"
TAGGED = frozenset({".conll", ".iob2", ".bio", TREEBANK})
LINES = frozenset({".jsonl", ".ndjson"})
PARQUET = ".parquet"
SUFFIXES = frozenset({*DELIMITERS, *TAGGED, *LINES, ".json", PARQUET})
TEXT = ".txt"
Unit = Literal["file", "paragraph", "line", "document"]
_COMMON_VOICE = frozenset({"client_id", "path", "sentence"})  # columns of its tables
_LONGEST_FIELD = 2**31 - 1
_HEAD, _LONG = 2**14, 2**20  # characters used to detect a format
_ROWS = 20  # rows used to detect a delimiter
_DELIMITERS = (";", "\t", "|", ",")
_EXCEL = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_SHEETS, _PACKED = frozenset({".xls", ".xlsx", ".ods"}), frozenset({".gz", ".zip", ".bz2", ".xz", ".zst", ".tar"})
_TREEBANK_COLUMNS = 8  # minimum: CoNLL-X and CoNLL-U have ten
_DOCUMENT = "-DOCSTART-"  # the start of a document, written like a sentence


class Bad(str):
    """The reason why a row can't be read, in place of the row."""

    __slots__ = ()


@dataclass(frozen=True)
class Records:
    """Rows with named columns.

    Attributes:
        columns: names of the columns, in order.
        rows: values by column (a JSON row may not have all); a `Path` means the content of that file.
        where: returns the name of a row for messages, by its index.
        folder: folder where the names of files in the rows start; None if rows can't name files.
        file: the file of the rows, if it is a single one.
        doubled: names that several columns have, so that they are ambiguous.
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
        delimiter: separator of the values in a CSV file; empty: detect it from the suffix and the header.
        quotes: whether double quotes enclose values of a CSV file, as in RFC 4180.
        encoding: see `read_text`.

    Raises:
        RecipeError: it can't be read in the format of its suffix; the message names the row.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        advice = " Save it as CSV." if suffix in _SHEETS else " Unpack it." if suffix in _PACKED else ""
        raise RecipeError(
            f"{path}: {suffix!r} files are not supported as data, only {', '.join(sorted({*SUFFIXES, TEXT}))}.{advice}"
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
    """Read rows of CSV or TSV; row 1 is the header, and empty rows count.

    Args:
        path: path of the file.
        text: its content.
        delimiter: separator of values; empty: take it from the first line (`sep=;`, as Excel writes it), or detect it.
        quotes: as for `read_table`.

    Raises:
        RecipeError: a quote is not closed; the message names the line.
    """
    separator = _EXCEL.match(text)
    if separator:
        delimiter, text = delimiter or separator[1], text[separator.end() :]
    is_common_voice = {*text[:_HEAD].partition("\n")[0].strip().split("\t")} >= _COMMON_VOICE
    quotes = quotes and not is_common_voice  # old releases quote, new ones do not
    delimiter = delimiter or _delimiter_of(text, DELIMITERS[path.suffix.lower()], quotes)
    csv.field_size_limit(_LONGEST_FIELD)
    lines = _reader(text, delimiter, quotes)
    first = 2 if separator else 1
    try:
        header = tuple(name.strip() for name in next(lines, ()))
        rows = {number: line for number, line in enumerate(lines, first + 1) if line}
        if is_common_voice:
            rows = {number: [_unquoted(value) for value in line] for number, line in rows.items()}
    except csv.Error as error:
        raise RecipeError(
            f"{path}, line {lines.line_num}: {error}. Fix the quotes, or add quotes=false if they have no meaning."
        ) from error
    columns = tuple(dict.fromkeys(header))
    doubled = frozenset(name for name in columns if header.count(name) > 1)
    checked = {number: _row(f"{path.name}, row {number}", header, line, delimiter) for number, line in rows.items()}
    return Records(columns, list(checked.values()), _named(path, "row", checked), path.parent, path, doubled)


def read_objects(path: Path, text: str) -> Records:
    """Read JSON: a list of objects, or one object per line, whatever the suffix.

    Raises:
        RecipeError: it is neither; the message names the item or line.
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
    """Read an Apache Parquet file; numbers that Hugging Face metadata names become their names.

    Raises:
        RecipeError: it can't be read.
    """
    try:
        from pyarrow import parquet

        table = parquet.read_table(path)
        rows = table.to_pylist()
        metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ImportError, OSError, ValueError, RecursionError) as error:  # Arrow's errors are ValueErrors and OSErrors
        raise RecipeError(f"{path} can't be read as Parquet: {one_line(error, 200)}") from error
    features = metadata.get("info", {}).get("features", {}) if isinstance(metadata, dict) else {}
    if isinstance(features, dict):
        named_features = {name: feature for name, feature in features.items() if _has_names(feature)}
        for row in rows:
            row.update(
                {name: _with_names(row[name], feature) for name, feature in named_features.items() if name in row}
            )
    columns = tuple(map(str, table.column_names))
    return Records(columns, rows, lambda index: f"{path.name}, row {index + 1}", path.parent, path)


def _has_names(feature: Any) -> bool:
    """Return whether a Hugging Face feature, or one nested in it, has names for its numbers."""
    if isinstance(feature, dict):
        return isinstance(feature.get("names"), list) or any(map(_has_names, feature.values()))
    return isinstance(feature, list) and any(map(_has_names, feature))


def _with_names(value: Any, feature: Any) -> Any:
    """Return a value with its numbers, also nested ones, replaced by the names of its feature."""
    inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
    if isinstance(inner, list) and inner:  # older versions describe a list in this way
        inner = inner[0]
    if isinstance(value, list):
        return [_with_names(part, inner) for part in value]
    if not isinstance(inner, dict):
        return value
    if isinstance(value, dict):
        return {name: _with_names(part, inner.get(name)) for name, part in value.items()}
    names = inner.get("names")
    if isinstance(names, list) and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value


def read_tagged(path: Path, encoding: str = "") -> Records:
    """Read sentences in CoNLL-2003 format: one word per line with its tag last, and a blank line between sentences.

    A `.conllu` file is a treebank: its second column is the word, its fourth the part of speech.

    Returns:
        For each sentence `words` and `tags`, as lists.

    Raises:
        RecipeError: it can't be read, has another encoding, or is a treebank with another suffix.
    """
    split_line = _of_treebank if path.suffix.lower() == TREEBANK else str.split
    sentences: dict[int, Mapping[str, Any] | Bad] = {}
    words: dict[int, list[str]] = {}  # by line: a word, other columns, its tag
    start = 1
    for number, line in enumerate([*read_text(path, encoding).split("\n"), ""], 1):
        if line.strip():
            words |= {number: columns} if (columns := split_line(line)) else {}
            continue
        if words:
            _reject_treebank(path, start, list(words.values()))
        if words and next(iter(words.values()))[0] != _DOCUMENT:
            sentences[start] = _sentence(path, words)
        start, words = number + 1, {}
    return Records(("words", "tags"), list(sentences.values()), _named(path, "line", sentences), path.parent, path)


def _sentence(path: Path, words: Mapping[int, list[str]]) -> Mapping[str, Any] | Bad:
    for number, columns in words.items():
        if len(columns) < 2:
            return Bad(f"{path.name}, line {number}: there is a word without a tag, or a tag without a word.")
    return {"words": [columns[0] for columns in words.values()], "tags": [columns[-1] for columns in words.values()]}


def _reject_treebank(path: Path, start: int, words: Sequence[list[str]]) -> None:
    are_numbers = [columns[0] for columns in words] == [str(number) for number in range(1, len(words) + 1)]
    if are_numbers and min(map(len, words)) >= _TREEBANK_COLUMNS:
        raise RecipeError(
            f"{path.name}, line {start}: the words are the numbers 1 to {len(words)}. Name CoNLL-U files .conllu."
        )


def _of_treebank(line: str) -> list[str]:
    """Return the word and its part of speech in a line of CoNLL-U; empty if the line is not a word of the text."""
    columns = line.split("\t")
    if not columns[0].isdecimal():
        return []
    return [columns[1], columns[3]] if len(columns) > 3 else [columns[0]]


def read_texts(paths: Sequence[Path], root: Path, column: str, unit: Unit = "file", encoding: str = "") -> Records:
    """Read text files as rows of one column.

    Args:
        paths: the files.
        root: folder where their names in messages start.
        column: the column's name.
        unit: whether a row is a file, a paragraph (separated by blank lines), a line that is not blank, or an article
            of WikiText.
        encoding: see `read_text`.

    Raises:
        RecipeError: a file is not UTF-8.
    """
    names = [path.relative_to(root).as_posix() for path in paths]
    if unit == "file":
        return Records((column,), [{column: path} for path in paths], names.__getitem__, root)
    named_texts = [
        (f"{name}, {part}", text)
        for path, name in zip(paths, names, strict=True)
        for part, text in _parts(path, unit, encoding)
    ]
    rows = [{column: text} for _, text in named_texts]
    return Records((column,), rows, lambda index: named_texts[index][0], root)


def _named(path: Path, unit: str, numbers: Iterable[int]) -> Callable[[int], str]:
    by_index = list(numbers)
    return lambda index: f"{path.name}, {unit} {by_index[index]}"


def _unquoted(value: str) -> str:
    """Return a value without the quotes of CSV, if it has them; quotes within it that are not doubled are its own."""
    inner = value[1:-1]
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else value


def _reader(text: str, delimiter: str, quotes: bool) -> Any:
    lines = io.StringIO(text, newline="")
    if quotes:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _delimiter_of(text: str, usual: str, quotes: bool) -> str:
    """Detect the delimiter: it splits most of the first rows into as many columns as the header; else the usual one.

    Of several candidates, one that is mostly followed by a blank is punctuation: `LJ001-0001|Printing, in the only`.
    """
    best, best_score = usual, (0.5, False, 1)
    for delimiter in (usual, *_DELIMITERS):
        widths = _widths(text, delimiter, quotes)
        columns = widths[0] if widths else 1
        share = widths.count(columns) / max(len(widths), 1)
        is_terse = 2 * text.count(f"{delimiter} ", 0, _HEAD) <= text.count(delimiter, 0, _HEAD)
        if columns > 1 and share > 0.5 and (share, is_terse, columns) > best_score:
            best, best_score = delimiter, (share, is_terse, columns)
    return best


def _widths(text: str, delimiter: str, quotes: bool) -> list[int]:
    """Return the number of values in each of the first rows, without unreadable rows and a cut last row."""
    widths: list[int] = []
    with contextlib.suppress(csv.Error):
        widths.extend(len(row) for row in itertools.islice(_reader(text[:_HEAD], delimiter, quotes), _ROWS) if row)
    if len(text) > _HEAD and 1 < len(widths) < _ROWS:
        del widths[-1]
    return widths


def _row(location: str, header: Sequence[str], values: Sequence[str], delimiter: str) -> Mapping[str, Any] | Bad:
    if len(values) != len(header):
        advice = f" Put a value that contains {delimiter!r} in quotes." if len(values) > len(header) else ""
        return Bad(f"{location}: it has {len(values)} values, but there are {len(header)} columns.{advice}")
    return dict(zip(header, values, strict=True))


def _starts_lines(text: str) -> bool:
    """Return whether a .json file holds several objects, one per line."""
    lines = [line for line in text[:_LONG].split("\n") if line.strip()][:2]
    try:
        return len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _objects(path: Path, text: str) -> dict[int, Mapping[str, Any] | Bad]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} can't be read as JSON: {error}.") from error
    if isinstance(items, dict):
        items = _of_object(path, items)
    if not isinstance(items, list):
        raise RecipeError(f"{path}: it must be a list of objects, not {_kind(items)}.")
    return {number: _checked(f"{path.name}, item {number}", item) for number, item in enumerate(items, 1)}


def _of_object(path: Path, document: Mapping[str, Any]) -> Any:
    """Return the rows of an object: its only list, or its columns if all are lists.

    Raises:
        RecipeError: the columns have different lengths.
    """
    lists = [value for value in document.values() if isinstance(value, list)]
    if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]) and lists[0]:
        return lists[0]
    if lists and len(lists) == len(document):
        if len({len(values) for values in lists}) > 1:
            lengths = ", ".join(f"{name!r} {len(values)}" for name, values in document.items())
            raise RecipeError(f"{path}: its columns must have the same length, but have: {lengths}.")
        return [dict(zip(document, values, strict=True)) for values in zip(*lists, strict=True)]
    return document


def _object(location: str, line: str) -> Mapping[str, Any] | Bad:
    try:
        return _checked(location, json.loads(line))
    except (ValueError, RecursionError) as error:
        return Bad(f"{location}: it can't be read as JSON: {error}.")


def _checked(location: str, item: Any) -> Mapping[str, Any] | Bad:
    return item if isinstance(item, dict) else Bad(f"{location}: it must be an object, not {_kind(item)}.")


def _kind(item: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(item), f"{item!r:.40}")


def _keys(objects: Mapping[int, Mapping[str, Any] | Bad]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for item in objects.values() if not isinstance(item, Bad) for key in item))


def _parts(path: Path, unit: Unit, encoding: str) -> Iterator[tuple[str, str]]:
    lines = read_text(path, encoding).replace("\r\n", "\n").split("\n")
    if unit == "document":
        yield from ((f"line {number + 1}", text) for number, text in documents(lines))
        return
    if unit == "line":
        yield from ((f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
        return
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    yield from ((f"paragraph {number}", part) for number, part in enumerate(filter(str.strip, paragraphs), 1))
