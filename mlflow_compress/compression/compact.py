"""Lossless compact weights on disk; in memory the weights are dense.

A tensor of two or more axes is written in the smallest of three forms:

* `codes`: at most 256 distinct values, and for each element the packed index of its value (clustered weights);
* `mask`: one bit per element, 0 where it is zero, and the values of the others (pruned weights);
* plain.

All tensors are in one safetensors file, `compact.safetensors`. A model with packed modules is written by
`stored_weights` instead.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import Unsupported, WeightsError, first_line
from mlflow_compress.networks.stored_weights import fill, load_weights, save_weights
from mlflow_compress.sockets import Family, Model, NativeFlavor, Published

Coding = Literal["none", "huffman"]

COMPACT = "compact.safetensors"
_FORMS, _ALIASES = "forms", "aliases"
_MOST_CODES = 256
_PEEK = 2**16  # elements to check first for few distinct values
_PART = 2**20  # elements per step, so that loading takes no more memory than the model; whole bytes for any bits
_HEADER_BYTES = 200  # approximate header size of a tensor in parts


@dataclass(frozen=True)
class Form:
    """How a tensor is written.

    Attributes:
        kind: `codes` (parts `codes` and `values`) or `mask` (parts `mask` and `values`).
        shape: Shape of the tensor.
        bits: Bits per code.
        coding: Entropy coding of the packed codes.
    """

    kind: Literal["codes", "mask"]
    shape: tuple[int, ...]
    bits: int = 1
    coding: Coding = "none"


def save_compact(module: Any, folder: Path, coding: Coding = "none") -> None:
    """Write a module's state, each tensor in its smallest form, tied ones once.

    Args:
        module: Module to write.
        folder: Folder of the file.
        coding: `huffman` codes the bytes of packed codes by their frequency (RFC 1951, section 3.2.7, without searching
            for repeats) where this is smaller.
    """
    import torch
    from safetensors.torch import save_file

    state = module.state_dict()
    if not all(type(tensor) is torch.Tensor and not tensor.is_quantized for tensor in state.values()):
        save_weights(module, folder)
        return
    first: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    forms: dict[str, dict[str, Any]] = {}
    parts: dict[str, Any] = {}
    for name, tensor in state.items():
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if (owner := first.setdefault(identity, name)) != name:
            aliases[name] = owner
        elif (encoded := _shortest(tensor, coding)) is not None:
            forms[name] = asdict(encoded[0])
            parts |= {f"{name}.{part}": value for part, value in encoded[1].items()}
        else:
            owns_storage = tensor.untyped_storage().nbytes() == tensor.nbytes
            parts[name] = tensor.contiguous() if owns_storage else tensor.clone(memory_format=torch.contiguous_format)
    metadata = {_FORMS: json.dumps(forms, separators=(",", ":")), _ALIASES: json.dumps(aliases), "format": "pt"}
    save_file(parts, str(folder / COMPACT), metadata=metadata)


def load_compact(module: Any, folder: Path) -> None:
    """Fill a module, whose parameters may be on the meta device, from a file of `save_compact`.

    Raises:
        WeightsError: The file is missing or corrupt, or its tensors do not fit the module.
    """
    if not (path := folder / COMPACT).is_file():
        load_weights(module, folder)
        return
    try:
        state = _read(path)
    except Exception as error:  # from safetensors, JSON, zlib, or wrong shapes
        raise WeightsError(f"The weights file {path} can't be read: {first_line(error)}") from error
    fill(module, state, path)


def publish_dense(saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
    """Write a model with compact weights as the float model that other programs load.

    The weights are the same, but take more bytes.

    Args:
        saved: Model folder.
        family: Family of the model.
        portable: Builds the model as it was saved.
        folder: Empty folder to write to.
    """
    if not (saved / COMPACT).is_file():
        return family.publish(saved, folder)
    with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as temporary:
        dense = Path(temporary, "dense")
        shutil.copytree(saved, dense, ignore=shutil.ignore_patterns(COMPACT))
        save_weights(portable().module, dense)
        return family.publish(dense, folder)


def native_flavor_of_dense(saved: Path, family: Family) -> NativeFlavor:
    """Return the flavor of MLflow that loads a model whose weights may be compact.

    Raises:
        Unsupported: They are. MLflow would need a second, full copy.
    """
    if (saved / COMPACT).is_file():
        raise Unsupported("its weights have a compact form that only this package reads; export writes them in full")
    return family.native_flavor(saved)


def _read(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        forms = {name: Form(**form) for name, form in json.loads(metadata[_FORMS]).items()}
        part_names = {f"{name}.{part}" for name, form in forms.items() for part in (form.kind, "values")}
        state = {name: file.get_tensor(name) for name in file.keys() if name not in part_names}  # noqa: SIM118
        for name, form in forms.items():
            state[name] = _decoded(form, file.get_tensor(f"{name}.{form.kind}"), file.get_tensor(f"{name}.values"))
    return state | {name: state[owner] for name, owner in json.loads(metadata[_ALIASES]).items()}


def _shortest(tensor: Any, coding: Coding) -> tuple[Form, Mapping[str, Any]] | None:
    """Return the smallest form and its parts; None if that is the plain form."""
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return None
    candidates = [form for form in (_as_codes(tensor, coding), _as_mask(tensor)) if form is not None]
    best = min(candidates, key=lambda candidate: _bytes(candidate[1]), default=None)
    return best if best is not None and _bytes(best[1]) + _HEADER_BYTES < tensor.nbytes else None


def _as_codes(tensor: Any, coding: Coding) -> tuple[Form, Mapping[str, Any]] | None:
    import numpy as np
    import torch

    from mlflow_compress.compression.packing import pack

    flat = tensor.reshape(-1)
    promoted = flat.to(torch.promote_types(flat.dtype, torch.float32))  # NumPy and bucketize do not support bfloat16
    values = torch.empty(0)
    for elements in (promoted[:_PEEK], promoted):
        values = torch.from_numpy(np.unique(elements.numpy()))
        if len(values) > _MOST_CODES:
            return None
    codes = torch.cat([torch.bucketize(part, values).to(torch.uint8) for part in promoted.split(_PART)])
    bits = max(1, (len(values) - 1).bit_length())
    parts = {"codes": pack(codes, bits), "values": values.to(tensor.dtype)}
    form = Form("codes", tuple(tensor.shape), bits)
    if coding == "huffman":
        aligned = 1 << (bits - 1).bit_length()  # no code spans two bytes
        coded = _huffman(parts["codes"] if aligned == bits else pack(codes, aligned))
        if coded.nbytes < parts["codes"].nbytes:
            return Form("codes", form.shape, aligned, coding), parts | {"codes": coded}
    return form, parts


def _as_mask(tensor: Any) -> tuple[Form, Mapping[str, Any]] | None:
    from mlflow_compress.compression.packing import pack

    flat = tensor.reshape(-1)
    mask = flat != 0
    if mask.all():
        return None
    return Form("mask", tuple(tensor.shape)), {"mask": pack(mask.byte(), 1), "values": flat[mask]}


def _decoded(form: Form, packed: Any, values: Any) -> Any:
    import torch

    count = torch.Size(form.shape).numel()
    if form.coding == "huffman":
        packed = torch.frombuffer(bytearray(zlib.decompress(packed.numpy(), -zlib.MAX_WBITS)), dtype=torch.uint8)
    if len(packed) != -(-count * form.bits // 8):
        raise ValueError(f"{len(packed)} bytes are not {count} codes of {form.bits} bits")
    flat = torch.zeros(count, dtype=values.dtype)
    offset = 0
    for start, codes in _unpacked(packed, form.bits, count):
        part = flat[start : start + len(codes)]
        if form.kind == "codes":
            torch.index_select(values, 0, codes.int(), out=part)
        else:
            mask = codes.bool()
            size = int(mask.sum())
            part[mask] = values[offset : offset + size]
            offset += size
    return flat.view(form.shape)


def _unpacked(packed: Any, bits: int, count: int) -> Iterator[tuple[int, Any]]:
    """Yield the start of each part and its codes."""
    from mlflow_compress.compression.packing import unpack

    for start in range(0, count, _PART):
        size = min(_PART, count - start)
        yield start, unpack(packed[start * bits // 8 : -(-(start + size) * bits // 8)], bits, size)


def _huffman(packed: Any) -> Any:
    import torch

    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, zlib.Z_HUFFMAN_ONLY)
    return torch.frombuffer(bytearray(coder.compress(packed.numpy()) + coder.flush()), dtype=torch.uint8)


def _bytes(parts: Mapping[str, Any]) -> int:
    return sum(part.nbytes for part in parts.values())
