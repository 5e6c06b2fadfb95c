"""Exports a model folder for other programs: its files without this package's own, and the line that loads them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.stored_weights import INDEX, SAFETENSORS
from mlflow_compress.sockets import Published

OURS = ("manifest.json", "layouts.json", "graphs.json", "architecture.json", "gives.json")
_PATTERN = re.compile(r"\*\.\w+")
_MODULE = re.compile(r"\b(?!open\b|net\b)[a-z]\w*(?=\.)")  # the module that the line must import


def copy_plain(saved: Path, folder: Path, without: Sequence[str] = ()) -> None:
    """Copy a model folder into an empty one, without the top-level files that only this package reads.

    Args:
        saved: the model folder.
        folder: the empty folder.
        without: further names to leave out.
    """
    left_out = {*OURS, *without}
    for path in sorted(saved.iterdir()):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif path.name not in left_out:
            shutil.copyfile(path, folder / path.name)


def publish_runtime(saved: Path, loaded_by: str, folder: Path) -> Published:
    """Copy the files of another runtime, with the tokenizer and the config beside them.

    Args:
        saved: the model folder.
        loaded_by: see `Method.loaded_by`.
        folder: the empty folder.

    Raises:
        Unsupported: there is no file for that runtime.
    """
    suffixes = [pattern[1:] for pattern in _PATTERN.findall(loaded_by)]
    names = sorted(path.stem for path in saved.glob(f"*{suffixes[0]}")) if suffixes else []
    if suffixes and not names:
        raise Unsupported(f"the logged model has no file *{suffixes[0]}")
    copy_plain(saved, folder, [f"{name}.json" for name in names])  # counts of parameters, for the size
    lines = [loaded_by.replace("*", name) for name in names]
    lines = lines or [loaded_by]
    if suffixes:
        lines = [re.sub(r'"([\w.]+\.\w+)"', r'"FOLDER/\1"', line) for line in lines]
    module = _imported(loaded_by)
    return Published(f"import {module}; " + "; ".join(lines), (module,))


def require_weights(saved: Path) -> None:
    """Raise if the weights of a float model are not in safetensors files.

    Raises:
        Unsupported: they have a format that only this package reads.
    """
    if not any((saved / name).is_file() for name in (SAFETENSORS, INDEX)):
        raise Unsupported("its weights are not in safetensors files, like those of version 0.1: measure it again")


def _imported(loaded_by: str) -> str:
    match = _MODULE.search(loaded_by.split("=", 1)[-1])
    assert match is not None, loaded_by
    return match[0]
