"""Weights in memory and on disk.

A module's state is written as safetensors if all values are plain tensors, in the same files as transformers writes:
`model.safetensors`, or shards and their index. Else (packed int8 of `torch.ao`) it is written with `torch.save`, and
read with `weights_only=True`: no code is ever unpickled. Tensors that share memory (tied weights) are written once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.errors import Unsupported, WeightsError, first_line, one_line
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.tensor_layouts import following_buffers
from mlflow_compress.torch_devices import ACCELERATORS, CPU

SAFETENSORS, TORCH = "model.safetensors", "weights.pt"
INDEX = f"{SAFETENSORS}.index.json"
_SAFETENSORS_OF_0_1 = "weights.safetensors"
_MOST_SHARD_BYTES = 5 * 10**9  # size of a file, the long-standing default of transformers
_ALIASES = "aliases"
_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_NAMES = 3  # in a message

_SHAPES = re.compile(  # torch's message for a tensor that does not fit
    r"size mismatch for (?P<name>[^:]+): .*torch\.Size\((?P<given>\[.*?\])\).*torch\.Size\((?P<own>\[.*?\])\)"
)

# relative difference of a model's outputs that rounding explains: devices round differently from the CPU
ROUNDING = {CPU: 0.02, **dict.fromkeys(ACCELERATORS, 0.1)}


def save_weights(module: Any, folder: Path) -> None:
    """Write a module's state dict into the folder, tied tensors once."""
    import torch

    state = module.state_dict()
    if not all(_is_plain(value) for value in state.values()):
        torch.save(state, folder / TORCH)  # keeps shared storages shared
        return
    first: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    unique: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        owner = first.setdefault(identity(tensor), name)
        if owner != name:
            aliases[name] = owner
            continue
        plain = tensor.detach().contiguous()
        if (storage := plain.untyped_storage().data_ptr()) in storages:
            plain = plain.clone()  # the format can't represent views that overlap only in part
        storages.add(storage)
        unique[name] = plain
    write_shards(unique, folder, {_ALIASES: json.dumps(aliases), "format": "pt"})


def write_shards(tensors: Mapping[str, Any], folder: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as one safetensors file, or as several with an index if they take more than 5 GB.

    Source: names and index of `save_pretrained` in transformers.

    Args:
        tensors: tensors by name; no two share memory.
        folder: the target folder.
        metadata: metadata for each file.
    """
    from safetensors.torch import save_file

    if sum(tensor.nbytes for tensor in tensors.values()) <= _MOST_SHARD_BYTES:
        save_file(dict(tensors), str(folder / SAFETENSORS), metadata=dict(metadata))
        return
    from huggingface_hub import split_torch_state_dict_into_shards  # it imports much of torch, which takes seconds

    split = split_torch_state_dict_into_shards(tensors, max_shard_size=_MOST_SHARD_BYTES)  # type: ignore[arg-type]
    for file, names in split.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, str(folder / file), metadata=dict(metadata))
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def load_weights(module: Any, folder: Path) -> None:
    """Fill a module, whose parameters may be on the meta device, from the files of `save_weights`.

    Raises:
        WeightsError: a file is missing or corrupt, or its tensors do not fit this module.
    """
    if (folder / INDEX).is_file():
        fill(module, read_state(folder / INDEX), folder / INDEX)
        return
    names = (SAFETENSORS, _SAFETENSORS_OF_0_1, TORCH)
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(f"There are no weights in {folder}: neither {SAFETENSORS} nor {TORCH}.")
    fill(module, read_state(path), path)


def shards(index: Path) -> Sequence[str]:
    """Return the file names in an index of weights.

    Raises:
        WeightsError: it is not such an index.
    """
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is not an index of weights: {one_line(error)}") from error
    return sorted({str(name) for name in files})


def read_state(path: Path) -> Mapping[str, Any]:
    """Read a state dict from safetensors, or from a file of `torch.save` without running code from it.

    Args:
        path: a `.safetensors` file, the index of several (`.json`), or a file of `torch.save`.

    Raises:
        WeightsError: the file can't be read as such.
    """
    import torch

    if path.suffix == ".json":
        names = shards(path)
        if not names or any(Path(name).name != name for name in names):
            raise WeightsError(f"{path} must name files beside it, but names {', '.join(names) or 'none':.100}.")
        files = [_read_safetensors(path.parent / name) for name in names]
        return _tied({name: tensor for state, _ in files for name, tensor in state.items()}, files[-1][1], path)
    if path.suffix == ".safetensors":
        return _tied(*_read_safetensors(path), path)
    _require_content(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        raise WeightsError(f"The weights file {path} can't be read: {first_line(error)}") from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"The weights file {path} holds a {type(state).__name__}, not a state dict.")
    return state  # not copied: packed modules need the versions in its attribute


def _read_safetensors(path: Path) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return a file's tensors by name, and the additional names of tied tensors.

    Raises:
        WeightsError: it can't be read.
    """
    from safetensors import safe_open

    _require_content(path)
    try:
        with safe_open(path, framework="pt") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
        state = {}
        for name in names:  # a separate mapping for each tensor frees its memory as soon as the tensor is released
            with safe_open(path, framework="pt") as file:
                state[name] = file.get_tensor(name)
        return state, json.loads(metadata.get(_ALIASES, "{}"))
    except Exception as error:
        raise WeightsError(f"The weights file {path} can't be read: {first_line(error)}") from error


def _tied(state: dict[str, Any], aliases: Mapping[str, str], path: Path) -> Mapping[str, Any]:
    """Return a state dict in which tied tensors have all their names."""
    try:
        return state | {name: state[owner] for name, owner in aliases.items()}
    except (KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"The weights file {path} can't be read: its aliases name {first_line(error)}") from error


def _require_content(path: Path) -> None:
    """Check that a file exists and is not a pointer of Git LFS.

    Raises:
        WeightsError: it is missing, or is a pointer.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    if is_pointer(path):
        raise WeightsError(f"{path} is a Git LFS pointer, not the weights: run git lfs pull.")


def is_pointer(path: Path) -> bool:
    """Return whether a file is a pointer to a file that Git LFS has not fetched."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def fill(module: Any, state: Mapping[str, Any], origin: Path) -> None:
    """Assign tensors to a module, instead of copying them into its own tensors.

    Raises:
        WeightsError: names or shapes differ.
    """
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise WeightsError(f"The weights in {origin} are not this model's: {_mismatch(error)}") from error
    _tie(module)
    module.requires_grad_(False)
    module.eval()


def _tie(module: Any) -> None:
    """Make parameters that share memory one object again: casting or moving would give each its own copy."""
    first: dict[Any, Any] = {}
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False, remove_duplicate=False)):
            if _is_plain(parameter):
                setattr(layer, name, first.setdefault(identity(parameter), parameter))


def cast(module: Any, dtype: Any) -> None:
    """Cast floating-point parameters and buffers, in place.

    Unsaved buffers of transformers' layers keep their precision (see `tensor_layouts.following_buffers`).

    Raises:
        Unsupported: no parameter changes.
    """
    changed = False
    for layer in module.modules():
        for _, parameter in layer.named_parameters(recurse=False):
            if parameter.is_floating_point() and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
                changed = True
        for name, buffer in layer.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in layer._non_persistent_buffers_set:
                setattr(layer, name, buffer.to(dtype))
    for _, layer, name in list(following_buffers(module)):
        layer._buffers[name] = layer._buffers[name].to(dtype)
    if not changed:
        raise Unsupported(f"all of its floating-point parameters are already {str(dtype).removeprefix('torch.')}")


def flat(output: Any) -> Any:
    """Return all numbers in a model's nested output as one float32 vector on the CPU.

    The numbers are those in tensors and arrays, and plain numbers.
    """
    import torch

    parts = [vector for leaf in value_trees.leaves(output) if (vector := _vector(leaf)) is not None]
    return torch.cat(parts) if parts else torch.zeros(0)


def _vector(leaf: Any) -> Any:
    """Return the numbers in a leaf; None if it has none."""
    import numpy as np
    import torch

    if isinstance(leaf, (bool, int, float, complex, np.number, np.ndarray)):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufc":
            return None
        leaf = torch.as_tensor(leaf)
    if not isinstance(leaf, torch.Tensor):
        return None
    plain = leaf.detach()
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain if plain.layout == torch.strided else plain.to_dense()
    plain = torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain
    return plain.float().cpu().reshape(-1)


def distance(one: Any, other: Any) -> float:
    """Return the 2-norm of the difference of two vectors, divided by the 2-norm of the second.

    It is infinite if their lengths differ, and NaN if both are empty.
    """
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).norm() / other.norm().clamp_min(1e-12)) if len(one) else float("nan")


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Build modules without memory for their parameters (they go to the meta device); buffers are real."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


@dataclasses.dataclass(frozen=True)
class Held:
    """A plain tensor with weights.

    Attributes:
        tensor: the tensor, whose bytes are the memory of the weights.
        parameters: number of its parameters; 0 for scales and zero points.
        unpack: returns the parameters, zero where they are zero, if they are not its elements.
    """

    tensor: Any
    parameters: int
    unpack: Callable[[], Any] | None = None

    def nonzero(self) -> int:
        """Count the parameters that are not zero."""
        if not self.parameters:
            return 0
        return int((self.unpack() if self.unpack else self.tensor).count_nonzero())


def held(module: Any) -> Iterator[Held]:
    """Yield every tensor with weights once: parameters, and the tensors inside packed modules and subclasses.

    Buffers (batch-norm statistics, position ids) are not weights. Tied parameters count once. A layer that packs its
    weights, and a replacement of a module in another runtime, may have a method `held_weights`, which returns `Held`
    objects, or pairs of a tensor and whether its elements are parameters.
    """
    for _, part in held_with_layers(module):
        yield part


def held_with_layers(module: Any) -> Iterator[tuple[Any, Held]]:
    """Yield the tensors of `held`, each with the layer that has it."""
    if hasattr(module, "held_weights"):
        yield from ((module, part) for part in _reported(module))
        return
    seen_storages: set[Any] = set()
    for layer in _layers(module, set()):
        if hasattr(layer, "held_weights"):
            yield from ((layer, part) for part in _reported(layer))
            continue
        for parameter in layer.parameters(recurse=False):
            for part in _opened(parameter.data):
                if (storage := identity(part.tensor)) not in seen_storages:
                    seen_storages.add(storage)
                    yield layer, part
    by_name = dict(module.named_modules())
    reporting = tuple(f"{name}." for name, layer in by_name.items() if hasattr(layer, "held_weights"))
    for name, value in module.state_dict().items():
        if not name.startswith(reporting) and (not _is_tensor(value) or value.is_quantized):
            layer = by_name.get(name.partition("._packed")[0], module)
            # unpacked into new copies, whose addresses do not identify them
            yield from ((layer, part) for part in _opened(value))


def _layers(module: Any, seen_modules: set[Any]) -> Iterator[Any]:
    """Yield a module and all modules below it once, but none below a module with `held_weights`."""
    if module not in seen_modules:
        seen_modules.add(module)
        yield module
        if not hasattr(module, "held_weights"):
            for child in module.children():
                yield from _layers(child, seen_modules)


def _reported(layer: Any) -> Iterator[Held]:
    for entry in layer.held_weights():
        if isinstance(entry, Held):
            yield entry
        else:
            tensor, is_parameter = entry
            yield Held(tensor, tensor.numel() if is_parameter else 0)


def _opened(value: Any) -> Iterator[Held]:
    """Open tuples, quantized tensors and tensor subclasses down to the plain tensors inside."""
    import torch

    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _opened(part)
    elif isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__"):
            inner = [part for name in value.__tensor_flatten__()[0] for part in _opened(getattr(value, name))]
            for index, part in enumerate(inner):
                is_packed = part.tensor.numel() != value.numel()  # several parameters in an element, as with 4 bits
                yield Held(part.tensor, 0 if index else value.numel(), _unpacker(value) if is_packed else None)
        elif value.is_quantized:
            yield Held(value.int_repr(), value.numel())
            if value.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
                yield Held(value.q_per_channel_scales(), 0)
                yield Held(value.q_per_channel_zero_points(), 0)
        else:
            yield Held(value, value.numel())


def _unpacker(value: Any) -> Callable[[], Any]:
    """Return the function that unpacks a tensor: one with 2:4 sparsity, or one with few bits."""
    import torch

    is_sparse = isinstance(value, torch.sparse.SparseSemiStructuredTensor)
    unpack: Callable[[], Any] = value.to_dense if is_sparse else value.dequantize
    return unpack


def _is_plain(value: Any) -> bool:
    import torch

    return type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_quantized


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def identity(tensor: Any) -> Any:
    """Return a key that is equal for tensors that share memory, such as tied weights."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _mismatch(error: Exception) -> str:
    """Return a short form of torch's message about names and shapes that differ."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    differences = []
    for kind, start in (("missing", "Missing key(s)"), ("unexpected", "Unexpected key(s)")):
        names = [name for line in lines if line.startswith(start) for name in re.findall(r'"([^"]+)"', line)]
        if names:
            differences.append(f"{kind}: {_few(names)}")
    if shapes := [match for line in lines if (match := _SHAPES.match(line))]:
        differences.append(f"different shapes: {_few([match['name'] for match in shapes])}")
        differences.append(f"{shapes[0]['name']} is {shapes[0]['given']} in the file, {shapes[0]['own']} in the model")
    return ("; ".join(differences) or " ".join(lines[1:3] or lines[:1]))[:600]


def _few(names: Sequence[str]) -> str:
    hidden = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {hidden} more" if hidden > 0 else "")
