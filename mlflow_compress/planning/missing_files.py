"""Messages for a MODEL that is a path: there is no such file, or it holds weights without an architecture."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from mlflow_compress.compression.runtime_files import FORMATS
from mlflow_compress.plain_text import plain
from mlflow_compress.trust_word import is_called_by_mlflow

_RECIPES, _CODE = (".yaml", ".yml"), (".py",)
_WEIGHTS = (".pth", ".ckpt", ".safetensors", ".bin", ".pt")
_LONGEST_NAME = 200  # characters of a path in a message


def missing(name: str) -> str:
    """Return the message for a missing file; empty if the name is not a path, or the file exists."""
    path = Path(name)
    if not _is_path(name) or exists(path):
        return ""
    kind = "recipe" if path.suffix in _RECIPES else "file"
    return f"There is no {kind} {plain(name, _LONGEST_NAME)}{_near(path)}{_where(path)}"


def weights_alone(name: str) -> str:
    """Return how to measure weights without an architecture; empty if the name is not such a file."""
    path = Path(name)
    if path.suffix not in _WEIGHTS or not exists(path):
        return ""
    short_name = plain(name, _LONGEST_NAME)
    return (
        f"{short_name} holds only weights; their architecture is in the code that trained them. Run `compress-bench "
        f"init my_model`, put that code into the file that it writes, and pass these weights: "
        f"compress-bench run my_model.py --weights {short_name}"
    )


def _is_path(name: str) -> bool:
    """Return whether a name can only mean a file, by its suffix or its first folder."""
    has_suffix = Path(name).suffix in (*_RECIPES, *_CODE, *_WEIGHTS, *FORMATS, ".gguf")
    return has_suffix or name.startswith(("./", "../", "/", "~"))


def exists(path: Path) -> bool:
    """Return whether a file or folder exists; accept any text, even one that can't be a path."""
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name can be, or with a null byte
        return False


def _near(path: Path) -> str:
    """Suggest the file in the same folder whose name is most similar."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.is_file()]
    except (OSError, ValueError):
        return "."
    matches = difflib.get_close_matches(path.name[:_LONGEST_NAME], names, n=1, cutoff=0.6)
    return f": did you mean {plain(str(path.parent / matches[0]), _LONGEST_NAME)}?" if matches else "."


def _where(path: Path) -> str:
    """Explain where a relative path starts, if that is not the user's current folder."""
    if path.is_absolute() or not is_called_by_mlflow():
        return ""
    return f" `mlflow run` works in the project's folder, {Path.cwd()}: use an absolute path for a file elsewhere."
