"""Reads a file of `torch.save` as data: the content of its pickle, without calling anything, and its tensors."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.networks import inert_pickle
from mlflow_compress.networks.inert_pickle import Elsewhere, Made

_FRONT = b"PK\x03\x04"  # torch recognises its zip archives by this; older files are plain pickles
_PICKLE, _SCRIPT = "data.pkl", "constants.pkl"
_MOST_ENTRIES = 100_000
_FOREIGN = "it is not a zip archive of torch.save"
_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Checkpoint:
    """The content of a file.

    Args:
        archive: the file.

    Attributes:
        content: content of its pickle (see `inert_pickle.Inert`).
        calls: the calls that the pickle would make (see `inert_pickle.Inert`).

    Raises:
        ValueError: it has another format than torch writes.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        name = _pickle_in(archive)
        self._archive, self._folder = archive, name.removesuffix(_PICKLE)
        pickled = inert_pickle.read(archive.read(name))
        self.content, self.calls = pickled.content, pickled.calls
        self._storages: dict[str, Any] = {}
        if f"{self._folder}byteorder" in archive.namelist() and self._read("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")

    def tensor(self, node: Any) -> Any:
        """Return the tensor that a part of the content represents; a view if its storage is shared.

        Raises:
            ValueError: it does not represent a tensor, or its data is not in the file.
        """
        match node:
            case Made(name="torch._utils _rebuild_parameter", arguments=(data, *_)):
                return self.tensor(data)
            case Made(
                name="torch._utils _rebuild_tensor_v2", arguments=(Elsewhere() as storage, offset, size, stride, *_)
            ):
                return _view(self._storage(storage), offset, size, stride)
        raise ValueError("a weight is not a tensor")

    def _storage(self, storage: Elsewhere) -> Any:
        import torch

        match storage.key:
            case ("storage", kind, str(key), *_) if (dtype := _DTYPES.get(_kind(kind))) is not None:
                pass
            case _:
                raise ValueError("its numbers have an unknown type")
        if (key_and_type := f"{key} {dtype}") not in self._storages:
            data = bytearray(self._read(f"data/{key}"))
            kind = getattr(torch, dtype)
            count = len(data) // kind.itemsize
            self._storages[key_and_type] = (
                torch.frombuffer(data, dtype=kind, count=count) if count else torch.empty(0, dtype=kind)
            )
        return self._storages[key_and_type]

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(self._folder + name)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{name} is missing or damaged") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Checkpoint]:
    """Open a file.

    Raises:
        OSError: it can't be read.
        ValueError: it has another format than torch writes.
    """
    with path.open("rb") as file:
        if file.read(len(_FRONT)) != _FRONT:
            raise ValueError(_FOREIGN)
        try:
            archive = zipfile.ZipFile(file)
            checkpoint = Checkpoint(archive)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
            raise ValueError(_FOREIGN) from error
        with archive:
            yield checkpoint


def mapping_of(node: Any) -> Mapping[Any, Any]:
    """Return the dictionary that a part of the content represents; empty if it represents none."""
    if isinstance(node, Made) and node.name == "collections OrderedDict":
        return node.entries
    return node if isinstance(node, dict) else {}


def _pickle_in(archive: zipfile.ZipFile) -> str:
    """Return the name of the only pickle in an archive of torch, where nothing is compressed and names are unique."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(names) > _MOST_ENTRIES or len(set(names)) < len(names):
        raise ValueError("its archive has too many entries, or two with the same name")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("its archive is compressed")
    if sum(entry.file_size for entry in entries) > Path(str(archive.filename)).stat().st_size:
        raise ValueError("entries of its archive overlap")
    pickles = [name for name in names if name.rpartition("/")[2] == _PICKLE]
    if len(pickles) != 1 or any(name.rpartition("/")[2] == _SCRIPT for name in names):
        raise ValueError("its archive has no pickle, several, or TorchScript code")
    return pickles[0]


def _kind(kind: Any) -> str:
    """Return the name of a storage's class."""
    is_class = isinstance(kind, type) and issubclass(kind, Made)
    return kind.name.removeprefix("torch ") if is_class else ""


def _view(storage: Any, offset: Any, size: Any, stride: Any) -> Any:
    """Return a tensor as a view of a storage [elements]."""
    numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) != len(stride):
        raise ValueError("a tensor has no valid size")
    last_index = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and last_index >= len(storage):
        raise ValueError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, min(offset, len(storage)))
