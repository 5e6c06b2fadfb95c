"""What a recipe's file holds: YAML read as data, and its parts, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError, UnknownName, one_line
from mlflow_compress.plain_text import plain
from mlflow_compress.untrusted import Malformed
from mlflow_compress.untrusted_yaml import read_yaml, shown

LONGEST_NAME = 250  # characters of what MLflow shows as a run's name
MOST_VARIANTS = 10_000  # of one command, before any is left out: at two minutes each these take two weeks
_ONLY_OF_SWEEPS = {"methods", "threads", "exclude"}


def load(path: Path) -> Mapping[str, Any]:
    """Read a recipe's data.

    Raises:
        RecipeError: it is no YAML, or no mapping.
    """
    try:
        data = read_yaml(path)
    except (OSError, Malformed) as error:
        raise RecipeError(f"{path} is not readable as YAML: {one_line(error)}") from error
    return mapping(path, "the recipe", data)


def is_sweep(data: Mapping[str, Any]) -> bool:
    """Return whether a recipe's data is of a sweep over many models."""
    return "models" in data or ("family" not in data and not _ONLY_OF_SWEEPS.isdisjoint(data))


def require_known_keys(path: Path, data: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Complain about a key that a recipe does not have.

    Raises:
        UnknownName: there is one.
    """
    for key in data:
        if key not in keys:
            raise UnknownName(f"key in {path.name}", str(key), keys)


def require_inside(path: Path, what: str, name: str) -> None:
    """Complain about a path in a recipe that leads out of the recipe's folder, unless it is absolute.

    Raises:
        RecipeError: it does.
    """
    if ".." in Path(name).parts:
        raise RecipeError(f"{path}: {what} leaves the recipe's folder: {name}. Give an absolute path instead.")


def mapping(path: Path, what: str, data: Any) -> Mapping[str, Any]:
    """Return a part of a recipe that is a mapping, or nothing.

    Raises:
        RecipeError: it is something else.
    """
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise RecipeError(f"{path}: {what} must be a mapping, not {shown(data)}.")
    return data


def listed(path: Path, what: str, data: Any) -> Sequence[Any]:
    """Return a part of a recipe that is a list with something in it.

    Raises:
        RecipeError: it is something else.
    """
    if not isinstance(data, (list, tuple)) or not data:
        raise RecipeError(f"{path}: {what} must be a list with something in it, not {shown(data)}.")
    return data


def texts(path: Path, what: str, data: Any) -> Sequence[str]:
    """Return a part of a recipe that is a list of names.

    Raises:
        RecipeError: it is something else.
    """
    if not isinstance(data, (list, tuple)) or not all(isinstance(each, str) for each in data):
        raise RecipeError(f"{path}: {what} must be a list of names, not {shown(data)}.")
    return data


def require_few(count: int, name: str) -> None:
    """Complain about more variants than a command measures, before they are made.

    Args:
        count: of variants.
        name: of what asks for them.

    Raises:
        RecipeError: there are more than `MOST_VARIANTS`.
    """
    if count > MOST_VARIANTS:
        raise RecipeError(
            f"{plain(name, LONGEST_NAME)} asks for {count:,} variants, more than the {MOST_VARIANTS:,} of one "
            "command: methods, batch sizes, threads and values of options multiply. Take fewer, or several recipes."
        )
