"""The content of a CTranslate2 `model.bin`, read without its library, which trusts the lengths in the file."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_compress.errors import WeightsError

_VERSIONS = (6,)  # format versions that can be read
_TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_MOST_VARIABLES, _MOST_AXES = 100_000, 8


@dataclass(frozen=True)
class Variable:
    """A variable in a file.

    Attributes:
        name: its name in the library: `decoder/layer_0/ffn/linear_0/weight`.
        shape: lengths of its axes; empty for a setting.
        dtype: type of its elements.
        start: byte offset of its elements in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def is_parameter(self) -> bool:
        """Whether its elements are parameters: it is neither a setting nor a scale."""
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
        kind: the expected specification: `WhisperSpec`.

    Raises:
        WeightsError: the file has another format, or its lengths do not match its content.
    """
    try:
        with path.open("rb") as file:
            (version,) = _numbers(file, "I")
            if version not in _VERSIONS:
                raise ValueError(f"format version {version} is not supported")
            if (specification := _text(file)) != kind:
                raise ValueError(f"it holds a {specification[:40]!r}, not a {kind!r}")
            _, count = _numbers(file, "II")
            if count > _MOST_VARIABLES:
                raise ValueError(f"it declares {count} variables")
            size = path.stat().st_size
            table = [_variable(file, size) for _ in range(count)]
            names = {variable.name for variable in table}
            (aliases,) = _numbers(file, "I")
            if aliases > _MOST_VARIABLES or any(owner not in names for _, owner in _aliases(file, aliases)):
                raise ValueError("it has an alias for a variable that it does not contain")
            if file.read(1):
                raise ValueError("it has more bytes than its table declares")
    except (OSError, ValueError, struct.error) as error:
        raise WeightsError(f"{path} can't be read as a CTranslate2 model: {error}") from error
    return table


def _variable(file: BinaryIO, size: int) -> Variable:
    name = _text(file)
    (axes,) = _numbers(file, "B")
    if axes > _MOST_AXES:
        raise ValueError(f"{name[:80]} has {axes} axes")
    shape = _numbers(file, f"{axes}I")
    kind, length = _numbers(file, "<BI")
    if kind >= len(_TYPES):
        raise ValueError(f"{name[:80]} has an unknown type")
    start = file.tell()
    if length != math.prod(shape) * (4 if _TYPES[kind] in ("float32", "int32") else 1 if kind == 1 else 2):
        raise ValueError(f"{name[:80]} does not have the length of its shape")
    if start + length > size:
        raise ValueError("it is truncated")
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
        raise ValueError("it, or a name in it, is truncated")
    return content[:-1].decode("utf-8")
