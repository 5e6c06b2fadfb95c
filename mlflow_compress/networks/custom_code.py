"""Models of transformers that Python code beside their weights builds: `auto_map` in their `config.json` names it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.untrusted import Malformed, read_json

_CONFIG = "config.json"
_DYNAMIC = "transformers_modules."  # the package that transformers imports such code as
_ELSEWHERE = "--"  # in what auto_map says, between the repository of the code and its class


def is_needed(fields: Mapping[str, Any]) -> bool:
    """Return whether a config names code, and transformers has no model of its type without it."""
    if not fields.get("auto_map"):
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
        fields = read_json(folder / _CONFIG)
    except (OSError, Malformed):
        return False
    return isinstance(fields, Mapping) and is_needed(fields)


def is_elsewhere(fields: Mapping[str, Any]) -> bool:
    """Return whether the code that a config names lies in another repository of the hub."""
    named = fields.get("auto_map")
    return isinstance(named, Mapping) and any(_ELSEWHERE in str(each) for each in named.values())


def copy(source: Path, folder: Path) -> None:
    """Copy the code that lies beside a model."""
    for path in sorted(source.glob("*.py")):
        if not path.name.startswith(".") and path.resolve() != (folder / path.name).resolve():
            shutil.copyfile(path, folder / path.name)
