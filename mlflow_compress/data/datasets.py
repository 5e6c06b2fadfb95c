"""Labelled data: read the rows of a data specification (see `spec`), with their values by role."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_compress.data.columns import COLUMNS, column_of, columns_of, must_have, within
from mlflow_compress.data.data_files import find_file, index_files
from mlflow_compress.data.documents import documents
from mlflow_compress.data.hubdata import load_split
from mlflow_compress.data.keys import Kind, require_applicable
from mlflow_compress.data.label_forms import new_label
from mlflow_compress.data.layouts import (
    MEDIA,
    Form,
    MissingSplit,
    find_split,
    is_training,
    kind_of,
    read_path,
)
from mlflow_compress.data.list_cells import items_of
from mlflow_compress.data.media import ADVICE, Medium, without_advice
from mlflow_compress.data.similarities import require_different, require_number
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
    advice={"en": "The others were scored.", "ru": "Качество измерено на остальных."},
)
_TEXT_ALONE = ("text",)
_ANY_JSON = ("text", "label")  # the roles of services, whose inputs may be any JSON values
_LISTS = ("words", "tags")
_SPLIT = "split"  # also the column with the split of each row
_DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Row:
    """A sample.

    Attributes:
        values: values by role; sounds and pictures are `Medium`s, which numpy decodes when they are used.
        where: its origin: `reviews.csv, row 12` (the header is row 1).
    """

    values: Mapping[str, Any]
    where: str

    def digest(self, *roles: str) -> str:
        """Return the SHA-256 of all values, or of those with the given roles; sounds and pictures count as files."""
        values = {role: self.values[role] for role in roles or self.values if role in self.values}
        plain = {role: value.digest() if isinstance(value, Medium) else value for role, value in values.items()}
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Table:
    """The chosen rows.

    Attributes:
        rows: the rows, up to the limit.
        name: the data set's name for people.
        source: the data as `spec.parse` takes it; for a data set on the hub, with its commit.
        skipped: the reason for each skipped sample.
    """

    rows: list[Row]
    name: str
    source: str
    skipped: tuple[str, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """The first 16 digits of the SHA-256 of all rows' values in order."""
        return hashlib.sha256("".join(row.digest() for row in self.rows).encode()).hexdigest()[:_DIGEST_LENGTH]


@dataclass(frozen=True)
class _Source:
    """An opened source, before rows are chosen.

    Attributes:
        data: its specification, with the actual revision.
        records: all its rows.
        indices: indices of the specified rows.
        name: the data set's name for people.
        is_split: whether these rows are one split of several.
        roles: the roles of the columns.
    """

    data: Data
    records: Records
    indices: Sequence[int]
    name: str
    is_split: bool
    roles: Sequence[str]

    @functools.cached_property
    def files(self) -> Mapping[str, Mapping[str, Sequence[Path]]]:
        """Sounds and pictures that rows can name, by role."""
        folder = self.records.folder
        if folder is None:
            return {}
        return {role: index_files(folder, kind.suffixes, kind.seldom_read) for role, kind in MEDIA.items()}


def read(text: str, folder: Path, roles: Sequence[str], limit: int | None = None, seed: int = 0) -> Table:
    """Read the samples of a data specification.

    Without a limit, return all in order. With a limit, shuffle them and take the first ones, so that a smaller choice
    is part of a larger one. Read only the headers of sounds and pictures, unless bad ones are skipped.

    Args:
        text: the data, as `spec.parse` takes it.
        folder: folder where relative paths start.
        roles: the roles of the columns.
        limit: maximum number of samples; None: the data's own limit.
        seed: seed for shuffling.

    Raises:
        RecipeError: the data is not available, a column is missing, there is no row, or a row can't be read.
    """
    source = _open(parse(text), folder, roles)
    limit = source.data.limit if limit is None else limit
    order = list(source.indices)
    if limit is not None and limit < len(order):
        random.Random(seed).shuffle(order)  # noqa: S311  (nothing secret)
    rows, skipped = _take(source, roles, order, limit)
    if not rows:
        reason = f"the first of {len(skipped)} reasons: {skipped[0]}" if skipped else "it is empty"
        raise RecipeError(f"There is no sample in {text}: {reason}")
    if "similarity" in roles:
        require_different([row.values["similarity"] for row in rows], text)
    return Table(rows, source.name, str(source.data), tuple(skipped))


def scored(
    model: Model, data: str, folder: Path, roles: Sequence[str], limit: int | None = None, seed: int = 0
) -> list[Row]:
    """Read the samples that a model's quality is scored on (see `read`), and record them with the model.

    The data goes into its facts, and skipped samples into its cautions.
    """
    table = read(data, folder, roles, limit, seed)
    remember(model, table, Evaluation(data, folder, limit, seed))
    return table.rows


def scored_whole(
    model: Model, data: str, folder: Path, roles: Sequence[str], limit: int | None = None
) -> tuple[list[Row], int | None]:
    """Read all samples in order, also blank ones, for a family that joins them and cuts them into pieces.

    Returns:
        The rows, and the number of pieces to take: the limit, or that of the data; None: all.
    """
    specified = parse(data)
    unlimited = replace(specified, limit=None)
    source = _open(unlimited, folder, roles)
    rows, skipped = _take(source, roles, source.indices, None, keeps_blank=True)
    table = Table(rows, source.name, str(source.data), tuple(skipped))
    remember(model, table, Evaluation(str(unlimited), folder, None, 0))
    return rows, specified.limit if limit is None else limit


def remember(model: Model, table: Table, evaluation: Evaluation) -> None:
    """Record the data that a model's quality is scored on in its facts, and skipped samples in its cautions."""
    model.evaluation = evaluation
    model.facts |= {"data_name": table.name, "data_source": table.source, "data_digest": table.digest}
    if table.skipped:
        total = len(table.rows) + len(table.skipped)
        model.cautions.append(SKIPPED_SAMPLES.of(skipped=len(table.skipped), all=total, first=table.skipped[0]))


def draw(model: Model, roles: Sequence[str], count: int, seed: int) -> list[Any]:
    """Draw inputs for calibration and training that differ from all inputs that quality is scored on.

    They come from the data that the key `calibration` names, from the training split, or from the samples beyond the
    limit.

    Args:
        model: the model, which remembers the arguments of `scored`.
        roles: the roles passed to `scored`; the first is that of the input.
        count: number of inputs; if there are fewer, they are repeated.
        seed: seed for shuffling.

    Returns:
        The values of the first role; empty if there is no such data.

    Raises:
        RecipeError: as for `read`.
    """
    return [values[roles[0]] for values in draw_rows(model, roles, 1, count, seed)]


def draw_rows(model: Model, roles: Sequence[str], inputs: int, count: int, seed: int) -> list[Mapping[str, Any]]:
    """Draw inputs that consist of several columns, as `draw` does.

    Args:
        model: as for `draw`.
        roles: the roles passed to `scored`, those of the input first.
        inputs: number of roles that form the input.
        count: as for `draw`.
        seed: as for `draw`.

    Returns:
        The values of the input by role.

    Raises:
        RecipeError: as for `read`.
    """
    return [row.values for row in _drawn(model, roles, inputs, roles[:inputs], count, seed)]


def draw_labelled(model: Model, roles: Sequence[str], inputs: int, count: int, seed: int) -> list[Row]:
    """Draw labelled samples, as `draw_rows` does: their inputs differ from all inputs that quality is scored on.

    Args:
        model: as for `draw`.
        roles: the roles passed to `scored`, those of the input first.
        inputs: number of roles that form the input; the others are the label.
        count: as for `draw`.
        seed: as for `draw`.

    Returns:
        The samples with the values of all roles; empty if there is no such data.

    Raises:
        RecipeError: as for `read`.
    """
    return _drawn(model, roles, inputs, roles, count, seed)


def unscored_texts(model: Model, roles: Sequence[str], inputs: int, most: int) -> list[Mapping[str, Any]]:
    """Return all samples whose inputs are not scored, in order, each once, at most `most` of them.

    Args:
        model: as for `draw`.
        roles: the roles passed to `scored`, those of the input first.
        inputs: number of roles that form the input.
        most: maximum number of samples.

    Returns:
        The values of all roles; empty if there is no such data.

    Raises:
        RecipeError: as for `read`.
    """
    separate = _separate(model.evaluation, tuple(roles), inputs, tuple(roles)) if model.evaluation is not None else None
    if separate is None:
        return []
    source, held_out = separate
    rows, _ = _take(source, roles, source.indices, most, held_out, digested=roles[:inputs])
    return [row.values for row in rows]


def _drawn(model: Model, roles: Sequence[str], inputs: int, taken: Sequence[str], count: int, seed: int) -> list[Row]:
    """Draw samples with the values of the taken roles; repeat them if there are fewer."""
    separate = _separate(model.evaluation, tuple(roles), inputs, tuple(taken)) if model.evaluation is not None else None
    if separate is None:
        return []
    source, held_out = separate
    order = list(source.indices)
    random.Random(seed).shuffle(order)  # noqa: S311  (nothing secret)
    rows, _ = _take(source, taken, order, count, held_out, digested=roles[:inputs])
    return [rows[index % len(rows)] for index in range(count)] if rows else []


@functools.lru_cache(maxsize=2)
def _separate(
    evaluation: Evaluation, roles: tuple[str, ...], inputs: int, taken: tuple[str, ...]
) -> tuple[_Source, frozenset[str]] | None:
    """Open the data for calibration, and return it with the digests of the inputs that must not be used.

    Args:
        evaluation: the data that quality is scored on.
        roles: its roles, those of the input first.
        inputs: number of roles that form the input.
        taken: the roles that are needed of the data for calibration.
    """
    parsed, folder, input_roles = parse(evaluation.data), evaluation.folder, roles[:inputs]
    data = replace(parsed, columns={role: column for role, column in parsed.columns.items() if role in taken})
    source = _open(data, folder, taken)
    if data.calibration:
        own = parse(data.calibration)
        written = {"split": "train"} | {key: getattr(own, key) for key in own.given}
        columns = {**data.columns, **own.columns}
        calibration = replace(
            data, source=own.source, revision=own.revision, columns=columns, given=own.given, **written
        )
        source = _open(calibration, folder, taken, must_be_split="split" in own.given)
    elif source.is_split and not is_training(data.split):
        try:
            source = _open(replace(data, split="train"), folder, taken)
        except MissingSplit:
            return None
    elif evaluation.limit is None and data.limit is None:
        return None
    rows = read(evaluation.data, folder, roles, evaluation.limit, evaluation.seed).rows
    return source, frozenset(row.digest(*input_roles) for row in rows)


def _open(data: Data, folder: Path, roles: Sequence[str], must_be_split: bool = True) -> _Source:
    """Find the source and read its rows, but not the files that they name."""
    for key in data.columns:
        if key not in roles:
            raise UnknownName(f"key of data {str(data)!r}", key, [*roles, *KEYS])
    form = Form(data.split, data.delimiter, data.quotes, data.unit, data.encoding)
    kind: Kind | None = None
    if data.source.startswith(PACKAGE):
        path, version = _in_package(data)
        data, name = replace(data, revision=version), data.source.removeprefix(PACKAGE).partition("/")[0]
        records, is_split = read_path(path, roles, form)
    elif (local_path := path_of(data, folder)) is not None:
        name = local_path.stem if local_path.is_file() else local_path.resolve().name
        records, is_split = read_path(local_path, roles, form)
    else:
        records, commit = load_split(data.source, data.revision, data.config, data.split)
        data, name, is_split = replace(data, revision=commit), data.source.rpartition("/")[2], True
        kind = "hub"
    require_applicable(data, kind or kind_of(records), roles, joins_lines=tuple(roles) == _TEXT_ALONE)
    if data.unit == "document" and tuple(roles) == _TEXT_ALONE and (records.file is not None or records.folder is None):
        records = _documents_of(records, column_of("text", records, data))
    indices: Iterable[int] = range(len(records.rows))
    if not is_split and _SPLIT in records.columns and _SPLIT not in data.columns.values():
        values = dict.fromkeys(str(row[_SPLIT]) for row in records.rows if not isinstance(row, Bad) and _SPLIT in row)
        split = find_split(list(values), data.split, data.source)
        if is_split := split is not None:
            indices = [index for index in indices if _has(records.rows[index], _SPLIT, str(split))]
    if must_be_split and not is_split and ("split" in data.given or data.split != DEFAULT.split):
        raise RecipeError(f"{data.source} is not divided into splits: leave out split={data.split}.")
    if data.only:
        column, _, value = data.only.partition("=")
        must_have(column, "only", records, data)
        indices = [index for index in indices if _has(records.rows[index], column, value)]
    return _Source(data, records, list(indices), name, is_split, roles)


def _documents_of(records: Records, column: str) -> Records:
    """Join the rows of a table, which are lines of text, to documents. A row that can't be read stays a row."""
    rows: list[Mapping[str, Any] | Bad] = []
    firsts: list[int] = []
    lines: list[str] = []
    for index, row in enumerate(records.rows):
        if isinstance(row, Bad):
            rows.append(row)
            firsts.append(index)
        lines.append("" if isinstance(row, Bad) else str(within(row, column) or "").removesuffix("\n"))
    for first, text in documents(lines):
        rows.append({column: text})
        firsts.append(first)
    where = records.where
    return replace(records, columns=(column,), rows=rows, where=lambda index: where(firsts[index]))


def _in_package(data: Data) -> tuple[Path, str]:
    """Find the data of a Python package, and its version."""
    try:
        path, version = in_package(data.source)
    except FileNotFoundError as error:
        raise RecipeError(f"{data.source}: {error}.") from None
    except ModuleNotFoundError as error:
        name = data.source.removeprefix(PACKAGE).partition("/")[0]
        raise RecipeError(f"{data.source}: {error}. Try: pip install {name.replace('_', '-')}") from None
    if data.revision not in ("", version):
        raise RecipeError(f"{data.source}: version {data.revision} is required, but {version or 'none'} is installed.")
    return path, version


def _take(
    source: _Source,
    roles: Sequence[str],
    order: Iterable[int],
    limit: int | None,
    without: Collection[str] = (),
    keeps_blank: bool = False,
    digested: Sequence[str] = (),
) -> tuple[list[Row], list[str]]:
    """Read rows in the order of their indices until the limit is reached.

    If text is the only role, a blank row is not a sample: WikiText has blank rows between paragraphs.

    Args:
        source: the opened data.
        roles: the roles whose values are read.
        order: indices of the rows.
        limit: maximum number of rows; None: all.
        without: digests of rows that are left out.
        keeps_blank: whether a blank row counts as an empty text.
        digested: the roles that the digests are of; empty: all.

    Returns:
        The rows, and the reason for each skipped row.
    """
    columns = columns_of(roles, source.records, source.data)
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
        if not without or row.digest(*(digested or roles)) not in without:
            rows.append(row)
    return rows, skipped


def _is_blank(raw: Mapping[str, Any] | Bad, column: str) -> bool:
    text = None if isinstance(raw, Bad) else within(raw, column)
    return isinstance(text, str) and not text.strip()


def _row(source: _Source, columns: Mapping[str, str], index: int) -> Row:
    """Return the values that have a role.

    Raises:
        RecipeError: a value is missing, is empty, or can't be read.
    """
    location, raw = source.records.where(index), source.records.rows[index]
    if isinstance(raw, Bad):
        raise RecipeError(f"{raw} {ADVICE}")
    values = {role: _value(source, raw, column, role, location) for role, column in columns.items()}
    return Row(values, location)


def _value(source: _Source, raw: Mapping[str, Any], column: str, role: str, location: str) -> Any:
    value = within(raw, column)
    if role in COLUMNS and isinstance(value, float) and math.isnan(value):
        value = None  # how Python's JSON writes a missing value
    if role == "text" and isinstance(value, str) and not value.strip() and "audio" in source.roles:
        return ""  # a sound without speech
    if value is None or value in ([], {}) or (isinstance(value, str) and not value.strip()):
        raise RecipeError(f"{location}: {column} is empty. {ADVICE}")
    if isinstance(value, str) and not _is_unicode(value):
        raise RecipeError(f"{location}: {column} contains half of a surrogate pair. {ADVICE}")
    if role in MEDIA:
        medium = _medium(source, value, role, location)
        medium.decode() if source.data.skip_bad else medium.check()
        return medium
    if isinstance(value, Path):
        text = read_text(value, source.data.encoding)
        if not text.strip():
            raise RecipeError(f"{location}: the file is empty. {ADVICE}")
        return text
    if isinstance(value, Mapping) and role in COLUMNS and tuple(source.roles) != _ANY_JSON:
        advice = f"Name a value in it, such as {role}={column}.{next(iter(value))}."
        raise RecipeError(f"{location}: {column} is an object, not a text or a number. {advice}")
    if role == "similarity":
        require_number(value, location)
    if role in _LISTS and isinstance(value, str):
        return items_of(value) or value
    label = new_label(str(value), source.data.labels) if role == "label" else None
    return value if label is None else label


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair
        return False
    return True


def _medium(source: _Source, value: Any, role: str, location: str) -> Medium:
    medium, folder = MEDIA[role], source.records.folder
    if callable(value):
        return medium(location, value)
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):  # as in Parquet
        return medium(location, functools.partial(io.BytesIO, value["bytes"]))
    if isinstance(value, str) and folder is not None:
        try:
            value = find_file(value, folder, source.files[role])
        except RecipeError as error:
            raise RecipeError(f"{location}: {error} {ADVICE}") from None
    if not isinstance(value, Path):
        raise RecipeError(f"{location}: {role} must be the name of a file, not {value!r:.60}. {ADVICE}")
    opened: Medium = medium.at(value, str(value) if str(value).endswith(location) else f"{location}: {value}")
    return opened


def _has(raw: Mapping[str, Any] | Bad, column: str, value: str) -> bool:
    return not isinstance(raw, Bad) and str(within(raw, column)) == value
