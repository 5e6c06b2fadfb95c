"""Which keys of a data specification apply to which kind of source; the others are refused, not ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from mlflow_compress.data.spec import Data
from mlflow_compress.errors import RecipeError

Kind = Literal[
    "hub", "separated", "json", "parquet", "tagged", "texts", "sounds", "labelled", "arrays", "boxes", "masks"
]

_NAMES: Mapping[Kind, str] = {
    "hub": "data sets of the hub",
    "separated": "CSV and TSV tables",
    "json": "JSON tables",
    "parquet": "Parquet tables",
    "tagged": "CoNLL files",
    "texts": "text files",
    "sounds": "sounds with lists of transcripts",
    "labelled": "sub-folders named after labels",
    "arrays": "arrays (.npz)",
    "boxes": "pictures with boxes",
    "masks": "pictures with masks",
}
_ROWS: frozenset[Kind] = frozenset({"hub", "separated", "json", "parquet", "tagged", "texts", "sounds", "labelled"})
_FILES: frozenset[Kind] = frozenset({"separated", "json", "tagged", "texts", "sounds", "labelled"})
_APPLIES: Mapping[str, frozenset[Kind]] = {
    "split": frozenset(_NAMES),  # of data that is divided: whoever reads it knows
    "limit": frozenset(_NAMES),
    "only": _ROWS - {"texts"} | {"arrays"},
    "labels": _ROWS | {"arrays"},
    "class_map": _ROWS,
    "skip_bad": _ROWS | {"boxes", "masks"},
    "calibration": _ROWS,
    "config": frozenset({"hub"}),
    "unit": frozenset({"texts"}),
    "delimiter": frozenset({"separated"}),
    "quotes": frozenset({"separated"}),
    "encoding": _FILES,
}
_OF_ROLES: Mapping[str, tuple[Collection[str], str]] = {
    "labels": (("label", "tags"), "labels"),
    "class_map": (("image",), "labels of pictures"),
}  # one of these roles is needed, and its name


def require_applicable(data: Data, kind: Kind, roles: Collection[str] = (), joins_lines: bool = False) -> None:
    """Check that all written keys apply to a source.

    Args:
        data: the specification.
        kind: the kind of its source.
        roles: the roles that are read; empty: they do not matter.
        joins_lines: whether the rows of a table are lines of documents, to which `unit=document` applies.

    Raises:
        RecipeError: a key does not apply.
    """
    for key in sorted(data.given):
        if key == "unit" and data.unit == "document" and joins_lines:
            continue
        if kind not in _APPLIES[key]:
            kinds = ", ".join(name for other, name in _NAMES.items() if other in _APPLIES[key])
            raise RecipeError(f"{data}: {key} does not apply to {_NAMES[kind]}, only to {kinds}. Leave it out.")
        needed, name = _OF_ROLES.get(key, (roles, ""))
        if roles and not {*needed} & {*roles}:
            raise RecipeError(f"{data}: {key} applies to {name}, and this model's data has none. Leave it out.")
