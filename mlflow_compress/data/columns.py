"""Find the column of a table that has a role, and read its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.data.spec import Data
from mlflow_compress.data.tables import Bad, Records
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
    "sentence1": ("text1", "sentence_a", "text_a", "sent1", "question1", "first"),
    "sentence2": ("text2", "sentence_b", "text_b", "sent2", "question2", "second"),
    "similarity": ("score", "similarity_score", "label", "gold", "relatedness_score"),
    "query": ("question", "anchor", "claim"),
    "document": ("positive", "passage", "answer", "context", "text"),
}  # usual names of columns by role; the first that exists is used


PAIRS: tuple[tuple[str, str], ...] = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence")),
    *(("question", "passage"), ("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair")),
)  # usual names of the columns of two texts that are one input, as in GLUE
_TEXT, _PAIR = "text", "pair"


def columns_of(roles: Sequence[str], records: Records, data: Data) -> dict[str, str]:
    """Find the column of each role (see `column_of`). The role `pair` is left out if there is no second text.

    Raises:
        RecipeError: as for `column_of`.
    """
    columns = {role: data.columns[role] for role in roles if role in data.columns}
    if _PAIR in roles and not {_TEXT, _PAIR} & columns.keys():
        by_lower = {name.lower(): name for name in reversed(records.columns)}
        named = (pair for pair in PAIRS if {*pair} <= by_lower.keys())
        columns |= {role: by_lower[name] for role, name in zip((_TEXT, _PAIR), next(named, ()), strict=False)}
    present_roles = [role for role in roles if role != _PAIR or _PAIR in columns]
    return {
        role: must_have(columns[role], role, records, data) if role in columns else column_of(role, records, data)
        for role in present_roles
    }


def column_of(role: str, records: Records, data: Data) -> str:
    """Find the column of a role: the one that the data names, or one with the role's name or a usual name.

    Raises:
        RecipeError: there is none, or two columns have that name.
    """
    if (specified := data.columns.get(role)) is not None:
        return must_have(specified, role, records, data)
    column = usual_column(role, records.columns)
    return must_have(role if column is None else column, role, records, data)


def usual_column(role: str, columns: tuple[str, ...]) -> str | None:
    """Return the column with a usual name for a role, or None."""
    by_lower = {name.lower(): name for name in reversed(columns)}
    return next((by_lower[name] for name in (role, *COLUMNS.get(role, ())) if name in by_lower), None)


def must_have(column: str, key: str, records: Records, data: Data) -> str:
    """Return a column that a key of the data names.

    Raises:
        RecipeError: there is no such column, or two columns have that name.
    """
    is_file = records.file is None or records.file.name == Path(data.source).name
    table = data.source if is_file else str(records.file)
    if column in records.doubled:
        raise RecipeError(f"{table}: two columns have the name {column!r}. Rename one.")
    if column in records.columns or (column.partition(".")[0] in records.columns and "." in column):
        return column
    if not records.columns and records.rows and isinstance(bad := records.rows[0], Bad):
        raise RecipeError(bad)
    if not records.columns:
        raise RecipeError(f"There is no sample in {data}: it is empty")
    names = ", ".join(repr(name) for name in records.columns)
    raise RecipeError(
        f"{table} has no column {column!r} for {key}. Its columns are: {names}. Choose one with {key}=COLUMN."
    )


def within(raw: Mapping[str, Any], column: str) -> Any:
    """Return a value by its column, or by a path into nested columns (`translation.en`)."""
    if column in raw or "." not in column:
        return raw.get(column)
    first, _, inner_column = column.partition(".")
    inner = raw.get(first)
    return within(inner, inner_column) if isinstance(inner, Mapping) else None
