"""Models of transformers that are built by Python code beside their weights (`auto_map` in their `config.json`)."""

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
_OTHERS = "configuration_files"  # the field that names configs which transformers reads instead of this one
_DYNAMIC = "transformers_modules."  # the package under which transformers imports such code
_ELSEWHERE = "--"  # separates the repository of the code from its class in `auto_map`


def is_needed(fields: Mapping[str, Any]) -> bool:
    """Return whether a config names code, and transformers itself has no model of its type."""
    if not fields.get(_CODE):
        return False
    from transformers import CONFIG_MAPPING

    kind = str(fields.get("model_type"))
    return kind not in CONFIG_MAPPING or is_built_by_it(CONFIG_MAPPING[kind])


def is_built_by_it(config_class: type) -> bool:
    """Return whether such code, which was trusted then, defines a configuration's class."""
    return config_class.__module__.startswith(_DYNAMIC)


def lies_in(folder: Path) -> bool:
    """Return whether the config in a folder, which others may have written, needs code."""
    try:
        return is_needed(config_fields(str(folder)))  # read as for restoring
    except (RecipeError, WeightsError):
        return False


def passed_over(fields: Mapping[str, Any]) -> str:
    """Return the type of a model that transformers builds itself although its config names code; else empty."""
    code = fields.get(_CODE)
    is_model = isinstance(code, Mapping) and any(str(name).startswith("AutoModel") for name in code)
    return str(fields.get("model_type")) if is_model and not is_needed(fields) else ""


def obstacle(folder: Path, apart: Iterable[str] = ()) -> str:
    """Return why code that a folder's configs name may not run, even with trust; empty: all code is in the folder.

    Trust covers code in the folder, which the user can read. Code in another repository would be fetched from the hub,
    in its newest version.

    Args:
        folder: folder of the model.
        apart: folders in it with their own configs.
    """
    for path in (folder / subfolder / name for subfolder in ("", *apart) for name in _CONFIGS):
        try:
            fields = read_json(path, finite=False)  # transformers also reads NaN
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
    """Return whether a config names, at any depth, code in another repository."""
    if isinstance(value, Mapping):
        return any(_is_elsewhere(inner, is_code or name == _CODE) for name, inner in value.items())
    if isinstance(value, list):
        return any(_is_elsewhere(inner, is_code) for inner in value)
    return is_code and isinstance(value, str) and _ELSEWHERE in value


def copy(source: Path, folder: Path) -> None:
    """Copy the code beside a model."""
    for path in sorted(source.glob("*.py")):
        if not path.name.startswith(".") and path.resolve() != (folder / path.name).resolve():
            shutil.copyfile(path, folder / path.name)
