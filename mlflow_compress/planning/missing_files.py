"""What to say of a MODEL that is a path: there is no such file, or it holds weights and no architecture."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from mlflow_compress.plain_text import plain
from mlflow_compress.trust_word import is_called_by_mlflow

_RECIPES, _CODE = (".yaml", ".yml"), (".py",)
_WEIGHTS = (".pth", ".ckpt", ".safetensors", ".bin", ".pt")
_LONGEST_NAME = 200  # characters of a path in a sentence


def missing(name: str) -> str:
    """Return that there is no such file, and where to look; empty where the name is no path, or there is one."""
    path = Path(name)
    if not _is_path(name) or exists(path):
        return ""
    what = "recipe" if path.suffix in _RECIPES else "file"
    return f"There is no {what} {plain(name, _LONGEST_NAME)}{_near(path)}{_where(path)}"


def weights_alone(name: str) -> str:
    """Return how to measure weights that are no whole model; empty where a name is not that of such a file."""
    path = Path(name)
    if path.suffix not in _WEIGHTS or not exists(path):
        return ""
    told = plain(name, _LONGEST_NAME)
    return (
        f"{told} holds weights; their architecture is in the code that trained them. `compress-bench init my_model` "
        "writes a file to put that code in; then give these weights to it: "
        f"compress-bench run my_model.py --weights {told}"
    )


def _is_path(name: str) -> bool:
    """Return whether a name can only mean a file: by its ending, or as it leads from a folder."""
    is_named_so = Path(name).suffix in (*_RECIPES, *_CODE, *_WEIGHTS)
    return is_named_so or name.startswith(("./", "../", "/", "~"))


def exists(path: Path) -> bool:
    """Return whether there is a file or folder of that path; of any text, also one that can be no path."""
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name can be, or with a null byte
        return False


def _near(path: Path) -> str:
    """Name the file of that folder whose name is nearest; a name without a folder is looked for here."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.is_file()]
    except (OSError, ValueError):
        return "."
    near = difflib.get_close_matches(path.name[:_LONGEST_NAME], names, n=1, cutoff=0.6)
    return f": did you mean {plain(str(path.parent / near[0]), _LONGEST_NAME)}?" if near else "."


def _where(path: Path) -> str:
    """Say which folder a relative path starts from, where that is not the one in which the user is."""
    if path.is_absolute() or not is_called_by_mlflow():
        return ""
    return f" `mlflow run` works in the project's folder, {Path.cwd()}: give an absolute path to a file elsewhere."
