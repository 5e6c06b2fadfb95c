"""Read a recipe's YAML file as data, and check its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError, UnknownName, one_line
from mlflow_compress.plain_text import plain
from mlflow_compress.records import PublishedScore
from mlflow_compress.sockets import Metric
from mlflow_compress.untrusted import Malformed
from mlflow_compress.untrusted_yaml import read_yaml, shown

LONGEST_NAME = 250  # characters of what MLflow shows as a run's name
MOST_VARIANTS = 10_000  # per command, before exclusions; at two minutes each they take two weeks
_OF_PUBLISHED = ("value", "data", "source", "tolerance")
_NEVER_NEGATIVE = ("share", "hundred", "error_rate")  # scales of metrics
_ONLY_OF_SWEEPS = {"methods", "threads", "exclude"}


def load(path: Path) -> Mapping[str, Any]:
    """Read a recipe's data.

    Raises:
        RecipeError: it is not valid YAML, or not a mapping.
    """
    try:
        data = read_yaml(path)
    except (OSError, Malformed) as error:
        raise RecipeError(f"{path} can't be read as YAML: {one_line(error)}") from error
    return mapping(path, "the recipe", data)


def is_sweep(data: Mapping[str, Any]) -> bool:
    """Return whether a recipe's data describes a sweep over several models."""
    return "models" in data or ("family" not in data and not _ONLY_OF_SWEEPS.isdisjoint(data))


def require_known_keys(path: Path, data: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Reject unknown keys in a recipe.

    Raises:
        UnknownName: a key is unknown.
    """
    for key in data:
        if key not in keys:
            raise UnknownName(f"key in {path.name}", str(key), keys)


def require_inside(path: Path, what: str, name: str) -> None:
    """Reject a relative path that leads out of the recipe's folder.

    Raises:
        RecipeError: it does.
    """
    if ".." in Path(name).parts:
        raise RecipeError(f"{path}: {what} leaves the recipe's folder: {name}. Give an absolute path instead.")


def mapping(path: Path, what: str, data: Any) -> Mapping[str, Any]:
    """Return a part of a recipe that is a mapping or empty.

    Raises:
        RecipeError: it is something else.
    """
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise RecipeError(f"{path}: {what} must be a mapping, not {shown(data)}.")
    return data


def listed(path: Path, what: str, data: Any) -> Sequence[Any]:
    """Return a part of a recipe that is a non-empty list.

    Raises:
        RecipeError: it is something else.
    """
    if not isinstance(data, (list, tuple)) or not data:
        raise RecipeError(f"{path}: {what} must be a non-empty list, not {shown(data)}.")
    return data


def texts(path: Path, what: str, data: Any) -> Sequence[str]:
    """Return a part of a recipe that is a list of names.

    Raises:
        RecipeError: it is something else.
    """
    if not isinstance(data, (list, tuple)) or not all(isinstance(entry, str) for entry in data):
        raise RecipeError(f"{path}: {what} must be a list of names, not {shown(data)}.")
    return data


def require_few(count: int, name: str) -> None:
    """Reject more variants than one command measures, before they are created.

    Args:
        count: number of variants.
        name: the recipe or command that requests them.

    Raises:
        RecipeError: there are more than `MOST_VARIANTS`.
    """
    if count > MOST_VARIANTS:
        raise RecipeError(
            f"{plain(name, LONGEST_NAME)} requests {count:,} variants, and one command measures at most "
            f"{MOST_VARIANTS:,}: methods, batch sizes, threads and values of options multiply. Use fewer, or split "
            "them into several recipes."
        )


def published(path: Path, value: object, data: str, metrics: Mapping[str, Metric]) -> dict[str, PublishedScore]:
    """Read the published scores of a recipe, by metric.

    A score is a number, or a mapping with its `value`, the `data` it was computed on (default: the recipe's), its
    `source` (such as a paper) and the `tolerance`, a difference that is not worth mentioning:

        published: {accuracy: {value: 91.1, source: Sanh et al. 2019, table 1, tolerance: 0.003}}

    Args:
        path: Path of the recipe.
        value: The value of the key `published`.
        data: The recipe's data.
        metrics: The recipe's metrics.

    Raises:
        RecipeError: A score is not of this form, or below the smallest value of its metric.
        UnknownName: A key is unknown.
    """
    scores = {
        str(name): _published(path, str(name), score, data) for name, score in mapping(path, "published", value).items()
    }
    for name, score in scores.items():
        if score.value < 0 and name in metrics and metrics[name].facts.scale in _NEVER_NEGATIVE:
            raise RecipeError(f"{path}: published: {name}: value can't be negative, but is {score.value:g}.")
    return scores


def _published(path: Path, name: str, score: object, data: str) -> PublishedScore:
    fields: Mapping[str, Any] = score if isinstance(score, Mapping) else {"value": score}
    for key in fields:
        if key not in _OF_PUBLISHED:
            raise UnknownName(f"key of published: {name}", str(key), _OF_PUBLISHED)
    for key in ("value", "tolerance"):
        number = fields.get(key, 0.0 if key == "tolerance" else None)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise RecipeError(f"{path}: published: {name}: {key} must be a number, not {shown(number)}.")
    for key in ("data", "source"):
        if not isinstance(fields.get(key, ""), str):
            raise RecipeError(f"{path}: published: {name}: {key} must be text, not {shown(fields[key])}.")
    tolerance = fields.get("tolerance")
    return PublishedScore(
        float(fields["value"]),
        fields.get("data", data),
        fields.get("source", PublishedScore.source),
        None if tolerance is None else float(tolerance),
    )
