"""Which column of a table has which role, and what stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.data.spec import Data
from mlflow_compress.data.tables import Records
from mlflow_compress.errors import RecipeError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": (
        *("sentence", "transcript", "transcription", "normalized_text", "content", "document", "review", "review_text"),
        *("body", "comment", "utterance"),
    ),
    "label": ("labels", "class", "category", "sentiment", "target", "stars", "rating"),
    "audio": ("file", "file_name", "filename", "path", "audio_filepath", "audio_path", "audio_file", "wav", "id"),
    "image": ("img", "file", "file_name", "filename", "path", "image_path", "image_file"),
    "words": ("tokens",),
    "tags": ("ner_tags", "labels", "ner", "entities"),
    "source": ("src", "input", "text", "document", "article", "dialogue"),
    "target": ("tgt", "reference", "translation", "summary", "highlights", "output"),
}  # what columns are called that have a role; the first that is there is taken


def column_of(role: str, records: Records, data: Data) -> str:
    """Find the column that has a role: the one that the data says, or else one by its name or a usual one.

    Raises:
        RecipeError: there is none, or there are two of that name.
    """
    if (given := data.columns.get(role)) is not None:
        return must_have(given, role, records, data)
    column = usual_column(role, records.columns)
    return must_have(role if column is None else column, role, records, data)


def usual_column(role: str, columns: tuple[str, ...]) -> str | None:
    """Return the column that is called as those of a role are, or None."""
    known = {name.lower(): name for name in reversed(columns)}
    return next((known[name] for name in (role, *COLUMNS.get(role, ())) if name in known), None)


def must_have(column: str, key: str, records: Records, data: Data) -> str:
    """Return a column that a key of the data names.

    Raises:
        RecipeError: there is no such column, or there are two of that name.
    """
    is_file = records.file is None or records.file.name == Path(data.source).name
    table = data.source if is_file else str(records.file)
    if column in records.doubled:
        raise RecipeError(f"{table}: two columns are called {column!r}. Rename one.")
    if column in records.columns or (column.partition(".")[0] in records.columns and "." in column):
        return column
    if not records.columns:
        raise RecipeError(f"There is no sample in {data}: it is empty")
    there = ", ".join(repr(name) for name in records.columns)
    raise RecipeError(
        f"{table} has no column {column!r} for {key}. Its columns are: {there}. Say which with {key}=COLUMN."
    )


def within(raw: Mapping[str, Any], column: str) -> Any:
    """Return a value by its column, or by a path into nested ones (`translation.en`)."""
    if column in raw or "." not in column:
        return raw.get(column)
    first, _, rest = column.partition(".")
    inner = raw.get(first)
    return within(inner, rest) if isinstance(inner, Mapping) else None
