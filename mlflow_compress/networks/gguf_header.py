"""Reads the header of a GGUF file strictly, because llama.cpp's own parser is native code, and files are untrusted.

Every count, length, shape and offset is checked against the length of the file before it is used to read.

Source: the format's specification (docs/gguf.md of ggml), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_compress.errors import WeightsError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LEAST_ENTRY, _LEAST_TENSOR, _LEAST_STRING = 13, 25, 8  # least bytes of each in the file
_LONGEST_NAME, _MOST_AXES, _MOST_HEADS = 63, 4, 2**16
_LONGEST_KEY = 2**16 - 1


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: its name.
        shape: lengths of its axes, the innermost first, as in GGUF.
        type: its type, as llama.cpp names it, in lower case (`q4_0`).
        start: byte offset in the file.
        bytes: size in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    start: int
    bytes: int

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file.

    Attributes:
        fields: metadata by key; an array is a list.
        tensors: tensors in the file's order.
    """

    fields: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """The architecture, as llama.cpp names it (`llama`)."""
        return str(self.fields.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """Return a field of the architecture (`block_count`); None if it is missing."""
        return self.fields.get(f"{self.architecture}.{key}")


class _LieError(Exception):
    """The header contradicts the file."""


def read_header(path: Path) -> Header:
    """Read a file's header, and check it against the file.

    Raises:
        WeightsError: it is not a GGUF file, is truncated, or its header contradicts it.
    """
    try:
        with path.open("rb") as file:
            header = _Reader(file, path.stat().st_size).header()
        _require_sound(header)
    except _LieError as lie:
        raise WeightsError(f"{path} can't be read: {lie}.") from None
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}.") from error
    return header


class _Reader:
    """Reads a header from the beginning of a file of a known length."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._length, self._at = file, length, 0

    def header(self) -> Header:
        if self._length < 24 or self._take(4) != MAGIC:
            raise _LieError("it is not a GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            raise _LieError(f"it has GGUF version {version}; versions 2 and 3 are supported")
        tensors, entries = self._number("Q"), self._number("Q")
        self._require(tensors, _LEAST_TENSOR, "tensors")
        self._require(entries, _LEAST_ENTRY, "fields")
        fields: dict[str, Any] = {}
        for _ in range(entries):
            key = self._string(_LONGEST_KEY)
            if key in fields:
                raise _LieError(f"it has the field {key!r:.80} twice")
            fields[key] = self._value(self._number("I"))
        if fields.get("split.count", 0) not in (0, 1):
            raise _LieError("it is one part of a split model: merge the parts first (llama-gguf-split --merge)")
        entries_of_tensors = [self._tensor() for _ in range(tensors)]
        alignment = fields.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _LieError(f"its alignment is {alignment!r:.40}, which is not a power of two")
        begin = -(-self._at // alignment) * alignment
        return Header(fields, _placed(entries_of_tensors, begin, alignment, self._length))

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(_LONGEST_NAME)
        axes = self._number("I")
        if not 1 <= axes <= _MOST_AXES:
            raise _LieError(f"its tensor {name!r} has {axes} axes")
        shape = tuple(self._number("Q") for _ in range(axes))
        if min(shape) < 1 or math.prod(shape) >= 2**62:
            raise _LieError(f"its tensor {name!r} has the shape {shape!r:.100}")
        return name, shape, self._number("I"), self._number("Q")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string(self._length)
        if kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner == _STRING:
                self._require(count, _LEAST_STRING, "strings in an array")
                return [self._string(self._length) for _ in range(count)]
            code = self._code(inner)
            self._require(count, struct.calcsize(code), "numbers in an array")
            return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(code))))
        return self._number(self._code(kind))

    def _code(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise _LieError(f"it has a field of the unknown type {kind}")
        return _NUMBERS[kind]

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _string(self, longest: int) -> str:
        length = self._number("Q")
        if length > longest:
            raise _LieError(f"it has a string of {length} bytes; the maximum here is {longest}")
        # a vocabulary may contain bytes that are not valid text alone
        return self._take(length).decode("utf-8", "surrogateescape")

    def _require(self, count: int, size: int, unit: str) -> None:
        if count * size > self._length - self._at:
            raise _LieError(f"it is too short for the {count} {unit} that it declares")

    def _take(self, size: int) -> bytes:
        if size > self._length - self._at:
            raise _LieError("it is truncated")
        self._at += size
        return self._file.read(size)


def _placed(
    entries: list[tuple[str, tuple[int, ...], int, int]], begin: int, alignment: int, length: int
) -> tuple[Tensor, ...]:
    """Return the tensors, after checking that their bytes lie in the file and do not overlap."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    tensors = []
    for name, shape, kind, offset in entries:
        try:
            quantisation = GGMLQuantizationType(kind)
        except ValueError:
            raise _LieError(f"its tensor {name!r} has the unknown type {kind}") from None
        block, size = GGML_QUANT_SIZES[quantisation]
        if shape[0] % block:
            raise _LieError(
                f"its tensor {name!r} has rows of {shape[0]} values, but {quantisation.name} has blocks of {block}"
            )
        byte_count = math.prod(shape) // block * size
        if offset % alignment or begin + offset + byte_count > length:
            raise _LieError(f"its tensor {name!r} lies outside the file: the file is truncated, or its header is wrong")
        tensors.append(Tensor(name, shape, quantisation.name.lower(), begin + offset, byte_count))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise _LieError("it has two tensors with the same name")
    ordered = sorted(tensors, key=lambda tensor: tensor.start)
    for earlier, later in itertools.pairwise(ordered):
        if earlier.start + earlier.bytes > later.start:
            raise _LieError(f"its tensors {earlier.name!r} and {later.name!r} overlap")
    return tuple(tensors)


def _require_sound(header: Header) -> None:
    """Check the numbers of a language model that llama.cpp divides by and counts with."""
    if not header.architecture or not header.tensors:
        raise _LieError("it does not name its architecture, or has no tensors")
    blocks = header.of_architecture("block_count")
    if blocks is not None and not (type(blocks) is int and 0 < blocks <= len(header.tensors)):
        raise _LieError(f"it declares {blocks!r:.40} layers but has {len(header.tensors)} tensors")
    for key in ("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"):
        value = header.of_architecture(key)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not (type(number) is int and 0 <= number <= _MOST_HEADS):
                raise _LieError(f"its {key} is {number!r:.40}")
        if value == 0 or value == []:
            raise _LieError(f"its {key} is {value!r}")
    width = header.of_architecture("embedding_length")
    embedding = next((tensor for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is not None and width != embedding.shape[0]:
        raise _LieError(f"its embedding_length is {width!r:.40}, but its embeddings have {embedding.shape[0]} values")
