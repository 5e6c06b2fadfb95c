"""What lies in a `model.bin` of CTranslate2, read without its library, which trusts the lengths in the file."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_compress.errors import WeightsError

_VERSIONS = (6,)  # of the format
_TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_MOST_VARIABLES, _MOST_AXES = 100_000, 8


@dataclass(frozen=True)
class Variable:
    """A variable of a file.

    Attributes:
        name: as the library calls it, `decoder/layer_0/ffn/linear_0/weight`.
        shape: its axes; none of a setting.
        dtype: the type of its elements.
        start: where its elements begin in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def is_parameter(self) -> bool:
        """Whether its elements are parameters: it is no setting, and no scale."""
        return bool(self.shape) and not self.name.endswith(("_scale", "_zero"))

    def read(self, path: Path) -> Any:
        """Return the elements as a tensor."""
        import torch

        dtype = getattr(torch, self.dtype)
        data = bytearray(math.prod(self.shape) * dtype.itemsize)
        with path.open("rb") as file:
            file.seek(self.start)
            file.readinto(data)
        return torch.frombuffer(data, dtype=dtype).reshape(self.shape) if data else torch.empty(self.shape, dtype=dtype)


def variables(path: Path, kind: str) -> list[Variable]:
    """Read a file's table of variables.

    Args:
        path: the file.
        kind: the specification that it must be of: `WhisperSpec`.

    Raises:
        WeightsError: it is no such file, or its lengths are not those of what it holds.
    """
    try:
        with path.open("rb") as file:
            (version,) = _numbers(file, "I")
            if version not in _VERSIONS:
                raise ValueError(f"version {version} of the format is not known")
            if (found := _text(file)) != kind:
                raise ValueError(f"it is of {found[:40]!r}, not of {kind!r}")
            _, count = _numbers(file, "II")
            if count > _MOST_VARIABLES:
                raise ValueError(f"it names {count} variables")
            size = path.stat().st_size
            read = [_variable(file, size) for _ in range(count)]
            known = {each.name for each in read}
            (aliases,) = _numbers(file, "I")
            if aliases > _MOST_VARIABLES or any(owner not in known for _, owner in _aliases(file, aliases)):
                raise ValueError("it names variables twice that it does not hold")
            if file.read(1):
                raise ValueError("it is longer than what it says that it holds")
    except (OSError, ValueError, struct.error) as error:
        raise WeightsError(f"{path} is no model of CTranslate2 that can be read: {error}") from error
    return read


def _variable(file: BinaryIO, size: int) -> Variable:
    name = _text(file)
    (axes,) = _numbers(file, "B")
    if axes > _MOST_AXES:
        raise ValueError(f"{name[:80]} has {axes} axes")
    shape = _numbers(file, f"{axes}I")
    kind, length = _numbers(file, "<BI")
    if kind >= len(_TYPES):
        raise ValueError(f"{name[:80]} is of an unknown type")
    start = file.tell()
    if length != math.prod(shape) * (4 if _TYPES[kind] in ("float32", "int32") else 1 if kind == 1 else 2):
        raise ValueError(f"{name[:80]} is not as long as its shape says")
    if start + length > size:
        raise ValueError("it ends early")
    file.seek(length, 1)
    return Variable(name, shape, _TYPES[kind], start)


def _aliases(file: BinaryIO, count: int) -> Iterator[tuple[str, str]]:
    for _ in range(count):
        yield _text(file), _text(file)


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    form = form if form.startswith("<") else f"<{form}"
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BinaryIO) -> str:
    (length,) = _numbers(file, "H")
    content = file.read(length)
    if not length or len(content) < length or content[-1]:
        raise ValueError("it ends early, or a name in it does")
    return content[:-1].decode("utf-8")
