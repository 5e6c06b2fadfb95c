"""Models of transformers that Python code beside their weights builds: `auto_map` in their `config.json` names it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks.hub import config_fields
from mlflow_compress.untrusted import Malformed, read_json

_CONFIGS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_CODE = "auto_map"  # the field that names code
_OTHERS = "configuration_files"  # the field that names configs which transformers reads in this one's place
_DYNAMIC = "transformers_modules."  # the package that transformers imports such code as
_ELSEWHERE = "--"  # in what auto_map says, between the repository of the code and its class


def is_needed(fields: Mapping[str, Any]) -> bool:
    """Return whether a config names code, and transformers has no model of its type without it."""
    if not fields.get(_CODE):
        return False
    from transformers import CONFIG_MAPPING

    kind = str(fields.get("model_type"))
    return kind not in CONFIG_MAPPING or is_built_by_it(CONFIG_MAPPING[kind])


def is_built_by_it(config_class: type) -> bool:
    """Return whether a configuration's class is one of such code, which was trusted then."""
    return config_class.__module__.startswith(_DYNAMIC)


def lies_in(folder: Path) -> bool:
    """Return whether the config in a folder needs code; somebody else may have written it."""
    try:
        return is_needed(config_fields(str(folder)))  # read as when it is restored
    except (RecipeError, WeightsError):
        return False


def passed_over(fields: Mapping[str, Any]) -> str:
    """Return the type of a model that transformers builds itself though its config names code; empty: no such model."""
    named = fields.get(_CODE)
    is_model = isinstance(named, Mapping) and any(str(name).startswith("AutoModel") for name in named)
    return str(fields.get("model_type")) if is_model and not is_needed(fields) else ""


def obstacle(folder: Path, apart: Iterable[str] = ()) -> str:
    """Say why code that a folder's configs name may not run, trusted or not; empty: all of it lies beside the model.

    Trusted is what lies in the folder, as its reader can read it. What a config names of another repository,
    transformers would fetch from the hub, its newest version.

    Args:
        folder: of the model.
        apart: the folders in it that have configs of their own.
    """
    for path in (folder / place / name for place in ("", *apart) for name in _CONFIGS):
        try:
            fields = read_json(path, finite=False)  # transformers reads NaN, too
        except FileNotFoundError:
            continue
        except (OSError, Malformed):
            return f"{path.name} can't be read"
        if isinstance(fields, Mapping) and _OTHERS in fields:
            return f"{path.name} names other files to read instead ({_OTHERS})"
        if _is_elsewhere(fields):
            return f"{path.name} names code in another repository"
    return ""


def _is_elsewhere(value: object, is_code: bool = False) -> bool:
    """Return whether code that a config names, however deep in it, lies in another repository."""
    if isinstance(value, Mapping):
        return any(_is_elsewhere(inner, is_code or name == _CODE) for name, inner in value.items())
    if isinstance(value, list):
        return any(_is_elsewhere(inner, is_code) for inner in value)
    return is_code and isinstance(value, str) and _ELSEWHERE in value


def copy(source: Path, folder: Path) -> None:
    """Copy the code that lies beside a model."""
    for path in sorted(source.glob("*.py")):
        if not path.name.startswith(".") and path.resolve() != (folder / path.name).resolve():
            shutil.copyfile(path, folder / path.name)
