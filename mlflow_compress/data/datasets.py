"""Labelled data: the rows of what a text means (see `spec`), by what they are for."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_compress.data.columns import column_of, must_have, within
from mlflow_compress.data.data_files import find_file, index_files
from mlflow_compress.data.hubdata import load_split
from mlflow_compress.data.label_forms import called
from mlflow_compress.data.layouts import (
    MEDIA,
    Form,
    MissingSplit,
    find_split,
    is_training,
    read_path,
)
from mlflow_compress.data.media import MEND, Medium, without_advice
from mlflow_compress.data.spec import DEFAULT, KEYS, Data, parse, path_of
from mlflow_compress.data.tables import Bad, Records
from mlflow_compress.data.text_files import read_text
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.networks.hub import PACKAGE, in_package
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Evaluation, Model

SKIPPED_SAMPLES = CautionKind(
    "skipped_samples",
    short={"en": "some samples could not be read", "ru": "часть примеров не прочитана"},
    message={
        "en": "{skipped} of {all} samples could not be read and were left out: {first}",
        "ru": "примеров, которые не удалось прочитать и которые пропущены: {skipped} из {all}: {first}",
    },
    advice={"en": "The score is of the rest.", "ru": "Качество измерено на остальных."},
)
_TEXT_ALONE = ("text",)
_SPLIT = "split"  # also a column that says of each row what split it is in
_DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Row:
    """A sample.

    Attributes:
        values: by role; sounds and pictures are `Medium`s, which numpy decodes when they are used.
        where: where it is from: `reviews.csv, row 12` (the header is row 1).
    """

    values: Mapping[str, Any]
    where: str

    def digest(self, *roles: str) -> str:
        """Return the SHA-256 of all values, or of those of some roles; of a sound or picture it is that of the file."""
        chosen = {role: self.values[role] for role in roles or self.values}
        plain = {role: value.digest() if isinstance(value, Medium) else value for role, value in chosen.items()}
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Table:
    """The rows that were chosen.

    Attributes:
        rows: as many as asked for, or all.
        name: the data set's, for people.
        source: what was read, as `spec.parse` takes it; of a data set of the hub, with its commit.
        skipped: why samples were left out, one reason each.
    """

    rows: list[Row]
    name: str
    source: str
    skipped: tuple[str, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of all rows' values in order, the first 16 digits."""
        return hashlib.sha256("".join(row.digest() for row in self.rows).encode()).hexdigest()[:_DIGEST_LENGTH]


@dataclass(frozen=True)
class _Source:
    """A source that was opened, before rows are chosen.

    Attributes:
        data: what it is, with the revision found.
        records: all its rows.
        indices: of those that are meant.
        name: the data set's, for people.
        is_split: whether they are one split of several.
        roles: what the columns are wanted for.
    """

    data: Data
    records: Records
    indices: Sequence[int]
    name: str
    is_split: bool
    roles: Sequence[str]

    @functools.cached_property
    def files(self) -> Mapping[str, Mapping[str, Sequence[Path]]]:
        """The sounds and pictures that rows can name, by role."""
        folder = self.records.folder
        if folder is None:
            return {}
        return {role: index_files(folder, kind.suffixes, kind.seldom_read) for role, kind in MEDIA.items()}


def read(text: str, folder: Path, roles: Sequence[str], limit: int | None = None, seed: int = 0) -> Table:
    """Read the samples that a text means.

    Without a limit it gives all, in order. With a lower one it shuffles them and takes the first, so that fewer are a
    part of more. Of sounds and pictures it reads the headers; all of them where bad ones are to be skipped.

    Args:
        text: which data, as `spec.parse` takes it.
        folder: what relative paths start from.
        roles: what the columns are wanted for.
        limit: how many samples at most; None: as many as the data says.
        seed: of the shuffling.

    Raises:
        RecipeError: the data can't be had, a column is missing, there is no row, or one can't be read.
    """
    source = _open(parse(text), folder, roles)
    limit = source.data.limit if limit is None else limit
    order = list(source.indices)
    if limit is not None and limit < len(order):
        random.Random(seed).shuffle(order)  # noqa: S311  (nothing secret)
    rows, skipped = _take(source, roles, order, limit)
    if not rows:
        why = f"the first of {len(skipped)} reasons: {skipped[0]}" if skipped else "it is empty"
        raise RecipeError(f"There is no sample in {text}: {why}")
    return Table(rows, source.name, str(source.data), tuple(skipped))


def scored(
    model: Model, data: str, folder: Path, roles: Sequence[str], limit: int | None = None, seed: int = 0
) -> list[Row]:
    """Read the samples that a model's quality is scored on (see `read`), and remember that with the model.

    What was read goes into its facts, and what was left out into its cautions.
    """
    table = read(data, folder, roles, limit, seed)
    remember(model, table, Evaluation(data, folder, limit, seed))
    return table.rows


def scored_whole(
    model: Model, data: str, folder: Path, roles: Sequence[str], limit: int | None = None
) -> tuple[list[Row], int | None]:
    """Read all samples in order, blank ones too, for a family that joins them and then takes so many pieces.

    Returns:
        The rows, and how many pieces are wanted: by the limit, or by the data's own; None: all.
    """
    asked = parse(data)
    everything = replace(asked, limit=None)
    source = _open(everything, folder, roles)
    rows, skipped = _take(source, roles, source.indices, None, keeps_blank=True)
    table = Table(rows, source.name, str(source.data), tuple(skipped))
    remember(model, table, Evaluation(str(everything), folder, None, 0))
    return rows, asked.limit if limit is None else limit


def remember(model: Model, table: Table, evaluation: Evaluation) -> None:
    """Note with a model what its quality is scored on: in its facts, and what was left out in its cautions."""
    model.evaluation = evaluation
    model.facts |= {"data_name": table.name, "data_source": table.source, "data_digest": table.digest}
    if table.skipped:
        total = len(table.rows) + len(table.skipped)
        model.cautions.append(SKIPPED_SAMPLES.of(skipped=len(table.skipped), all=total, first=table.skipped[0]))


def draw(model: Model, roles: Sequence[str], count: int, seed: int) -> list[Any]:
    """Draw inputs that methods may calibrate and train on, none of which equals one that quality is scored on.

    They are of the data that the key `calibration` names, or of the training split, or of what the limit leaves over.

    Args:
        model: remembers what `scored` was asked for.
        roles: as they were given there; the first is that of the input.
        count: how many inputs; where there are fewer, they come again.
        seed: of the shuffling.

    Returns:
        The values of the first role; none where there is no such data.

    Raises:
        RecipeError: as of `read`.
    """
    return [values[roles[0]] for values in draw_rows(model, roles, 1, count, seed)]


def draw_rows(model: Model, roles: Sequence[str], inputs: int, count: int, seed: int) -> list[Mapping[str, Any]]:
    """Draw inputs that several columns make up, as `draw` does.

    Args:
        model: as of `draw`.
        roles: as they were given to `scored`, those of the input first.
        inputs: how many roles make up the input.
        count: as of `draw`.
        seed: as of `draw`.

    Returns:
        The values of the input by role.

    Raises:
        RecipeError: as of `read`.
    """
    apart = _apart(model.evaluation, tuple(roles), inputs) if model.evaluation is not None else None
    if apart is None:
        return []
    source, held_out = apart
    order = list(source.indices)
    random.Random(seed).shuffle(order)  # noqa: S311  (nothing secret)
    rows, _ = _take(source, roles[:inputs], order, count, held_out)
    return [rows[index % len(rows)].values for index in range(count)] if rows else []


@functools.lru_cache(maxsize=1)
def _apart(evaluation: Evaluation, roles: tuple[str, ...], inputs: int) -> tuple[_Source, frozenset[str]] | None:
    """Open what may be calibrated on, and give the digests of the inputs that must not be."""
    whole, folder, wanted = parse(evaluation.data), evaluation.folder, roles[:inputs]
    data = replace(whole, columns={role: column for role, column in whole.columns.items() if role in wanted})
    source = _open(data, folder, wanted)
    if data.calibration:
        other = parse(data.calibration)
        split = "train" if other.split == DEFAULT.split else other.split
        columns = {**data.columns, **other.columns}
        other = replace(data, source=other.source, revision=other.revision, split=split, columns=columns)
        source = _open(other, folder, wanted, must_be_split=False)
    elif source.is_split and not is_training(data.split):
        try:
            source = _open(replace(data, split="train"), folder, wanted)
        except MissingSplit:
            return None
    elif evaluation.limit is None and data.limit is None:
        return None
    rows = read(evaluation.data, folder, roles, evaluation.limit, evaluation.seed).rows
    return source, frozenset(row.digest(*wanted) for row in rows)


def _open(data: Data, folder: Path, roles: Sequence[str], must_be_split: bool = True) -> _Source:
    """Find the source and read it, but nothing that its rows name."""
    for key in data.columns:
        if key not in roles:
            raise UnknownName(f"key of data {str(data)!r}", key, [*roles, *KEYS])
    form = Form(data.split, data.delimiter, data.quotes, data.unit, data.encoding)
    if data.source.startswith(PACKAGE):
        path, version = _in_package(data)
        data, name = replace(data, revision=version), data.source.removeprefix(PACKAGE).partition("/")[0]
        records, is_split = read_path(path, roles, form)
    elif (path_found := path_of(data, folder)) is not None:
        name = path_found.stem if path_found.is_file() else path_found.resolve().name
        records, is_split = read_path(path_found, roles, form)
    else:
        records, commit = load_split(data.source, data.revision, data.config, data.split)
        data, name, is_split = replace(data, revision=commit), data.source.rpartition("/")[2], True
    indices: Iterable[int] = range(len(records.rows))
    if not is_split and _SPLIT in records.columns and _SPLIT not in data.columns.values():
        values = dict.fromkeys(
            str(each[_SPLIT]) for each in records.rows if not isinstance(each, Bad) and _SPLIT in each
        )
        found = find_split(list(values), data.split, data.source)
        if is_split := found is not None:
            indices = [index for index in indices if _has(records.rows[index], _SPLIT, str(found))]
    if must_be_split and not is_split and data.split != DEFAULT.split:
        raise RecipeError(f"{data.source} is not divided into splits: leave out split={data.split}.")
    if data.only:
        column, _, value = data.only.partition("=")
        must_have(column, "only", records, data)
        indices = [index for index in indices if _has(records.rows[index], column, value)]
    return _Source(data, records, list(indices), name, is_split, roles)


def _in_package(data: Data) -> tuple[Path, str]:
    """Find what a Python package carries, and its version."""
    try:
        path, version = in_package(data.source)
    except FileNotFoundError as error:
        raise RecipeError(f"{data.source}: {error}.") from None
    except ModuleNotFoundError as error:
        name = data.source.removeprefix(PACKAGE).partition("/")[0]
        raise RecipeError(f"{data.source}: {error}. Try: pip install {name.replace('_', '-')}") from None
    if data.revision not in ("", version):
        raise RecipeError(f"{data.source}: version {data.revision} is wanted, but {version or 'none'} is installed.")
    return path, version


def _take(
    source: _Source,
    roles: Sequence[str],
    order: Iterable[int],
    limit: int | None,
    without: Collection[str] = (),
    keeps_blank: bool = False,
) -> tuple[list[Row], list[str]]:
    """Read rows in the order of their indices until there are as many good ones as the limit says.

    Where rows are of text alone, a blank one is no sample: WikiText has one between paragraphs.

    Returns:
        The rows, and why others were skipped.
    """
    columns = {role: column_of(role, source.records, source.data) for role in roles}
    rows: list[Row] = []
    skipped: list[str] = []
    for index in order:
        if len(rows) == limit:
            break
        if tuple(roles) == _TEXT_ALONE and _is_blank(source.records.rows[index], columns["text"]):
            rows += [Row({"text": ""}, source.records.where(index))] if keeps_blank else []
            continue
        try:
            row = _row(source, columns, index)
        except RecipeError as error:
            if not source.data.skip_bad:
                raise
            skipped.append(without_advice(error))
            continue
        if not without or row.digest(*roles) not in without:
            rows.append(row)
    return rows, skipped


def _is_blank(raw: Mapping[str, Any] | Bad, column: str) -> bool:
    text = None if isinstance(raw, Bad) else within(raw, column)
    return isinstance(text, str) and not text.strip()


def _row(source: _Source, columns: Mapping[str, str], index: int) -> Row:
    """Return the values that have a role.

    Raises:
        RecipeError: one is missing, empty or can't be read.
    """
    where, raw = source.records.where(index), source.records.rows[index]
    if isinstance(raw, Bad):
        raise RecipeError(f"{raw} {MEND}")
    values = {role: _value(source, raw, column, role, where) for role, column in columns.items()}
    return Row(values, where)


def _value(source: _Source, raw: Mapping[str, Any], column: str, role: str, where: str) -> Any:
    value = within(raw, column)
    if role == "text" and isinstance(value, str) and not value.strip() and "audio" in source.roles:
        return ""  # nothing is said in that sound
    if value is None or value in ([], {}) or (isinstance(value, str) and not value.strip()):
        raise RecipeError(f"{where}: {column} is empty. {MEND}")
    if isinstance(value, str) and not _is_unicode(value):
        raise RecipeError(f"{where}: {column} has half a character in it. {MEND}")
    if role in MEDIA:
        medium = _medium(source, value, role, where)
        medium.decode() if source.data.skip_bad else medium.check()
        return medium
    if isinstance(value, Path):
        text = read_text(value, source.data.encoding)
        if not text.strip():
            raise RecipeError(f"{where}: the file is empty. {MEND}")
        return text
    said = called(str(value), source.data.labels) if role == "label" else None
    return value if said is None else said


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can escape a half of a pair
        return False
    return True


def _medium(source: _Source, value: Any, role: str, where: str) -> Medium:
    medium, folder = MEDIA[role], source.records.folder
    if callable(value):
        return medium(where, value)
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):  # of Parquet
        return medium(where, functools.partial(io.BytesIO, value["bytes"]))
    if isinstance(value, str) and folder is not None:
        try:
            value = find_file(value, folder, source.files[role])
        except RecipeError as error:
            raise RecipeError(f"{where}: {error} {MEND}") from None
    if not isinstance(value, Path):
        raise RecipeError(f"{where}: {role} must be the name of a file, not {value!r:.60}. {MEND}")
    found: Medium = medium.at(value, str(value) if str(value).endswith(where) else f"{where}: {value}")
    return found


def _has(raw: Mapping[str, Any] | Bad, column: str, value: str) -> bool:
    return not isinstance(raw, Bad) and str(within(raw, column)) == value
