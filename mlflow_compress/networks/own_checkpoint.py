"""Finds the tensors of a module in a checkpoint, as people save them, and renames and casts them for the module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import plain_checkpoint
from mlflow_compress.networks.inert_pickle import Made
from mlflow_compress.networks.stored_weights import fill, identity, is_pointer, read_state, shards

_TENSOR = "torch._utils _rebuild_"  # prefix of the functions that make tensors when a pickle is read
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # added by torch's wrappers
_OUTER = frozenset(
    ("module", "model", "net", "network", "state_dict", "ema", "ema_model", "model_ema", "averaged_model", "backbone")
)  # trainers use these names for the attribute with the module
_DEEPEST = 4  # nested mappings
_INDICES, _FILES = ("*.index.json",), ("*.safetensors", "*.pt", "*.pth", "*.bin", "*.ckpt")
Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of a checkpoint that may be a module's state dict.

    Attributes:
        name: its path in the checkpoint; empty: the whole checkpoint.
        state: its tensors, by the module's names.
        prefix: prefix that was removed from the names, or added to them (then it begins with `+`).
        left: number of its tensors without this prefix.
        matched: number of names that match the module.
    """

    name: str
    state: Tensors
    prefix: str
    left: int
    matched: int


@dataclass(frozen=True)
class Fit:
    """Describes how a checkpoint was fitted to a module.

    Attributes:
        steps: which parts were used, and how they were renamed.
        cast: from which precision to which its tensors were cast; empty: they were not cast.
    """

    steps: tuple[str, ...] = ()
    cast: str = ""


def fill_from(module: Any, path: Path) -> Fit:
    """Fill a module from a file or folder; floating-point tensors get the precision of the module.

    No code in the file is run: from a module that was pickled whole, only the tensors are read.

    Raises:
        WeightsError: it can't be read, or its tensors do not fit this module.
    """
    content, steps = _content(path)
    expected = module.state_dict()
    parts = [_fitted(name, state, expected) for name, state in _candidates(content)]
    if not parts:
        raise WeightsError(f"The weights file {path} holds a {type(content).__name__}, not a state dict.")
    best = max(parts, key=lambda part: (part.matched, "ema" in f"{part.name}{part.prefix}".lower(), -len(part.name)))
    if best.name:
        rivals = [part.name for part in parts if part.matched == best.matched and part.name != best.name]
        steps.append(f"the entry {best.name!r} was used" + (f", not {', '.join(rivals)!r}" if rivals else ""))
    if best.prefix:
        is_added = best.prefix.startswith("+")
        steps.append(f"{best.prefix.lstrip('+')!r} was {'added to' if is_added else 'removed from'} its names")
    if best.left:
        steps.append(f"{best.left} tensors with other names were ignored")
    state, cast = _in_precision_of(best.state, expected)
    fill(module, state, path)
    return Fit(tuple(steps), cast)


def _content(path: Path) -> tuple[Any, list[str]]:
    """Read a file, or the weights in a folder; return the content, and a description of the choice."""
    if path.is_dir():
        index = next((file for pattern in _INDICES for file in sorted(path.glob(pattern))), None)
        if index is not None:
            return _of_shards(index), [f"read from the files in {index.name}"]
        files = [file for pattern in _FILES for file in sorted(path.glob(pattern))]
        if len(files) != 1:
            listed = f"none of {', '.join(_FILES)}" if not files else f"{', '.join(file.name for file in files[:3])}"
            raise WeightsError(f"The folder {path} holds {listed}: name the weights file itself.")
        return _content(files[0])[0], [f"read from {files[0].name}"]
    if path.name.endswith(".index.json"):
        return _of_shards(path), []
    if path.suffix == ".safetensors":
        return read_state(path), []
    return _of_pickle(path), []


def _of_shards(index: Path) -> Tensors:
    """Read the files that an index names.

    Raises:
        WeightsError: it is not an index, or a file is missing or in another folder.
    """
    state: dict[str, Any] = {}
    for name in map(Path, shards(index)):
        shard = index.parent / name
        if name.is_absolute() or ".." in name.parts or not shard.is_file():
            raise WeightsError(f"{index} names {name}, but there is no such file beside it.")
        state |= _content(shard)[0]
    return state


def _of_pickle(path: Path) -> Any:
    """Read a file of `torch.save` with torch's safe loader, or as data without calling anything."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as refusal:  # torch raises many types if it refuses
        try:
            with plain_checkpoint.opened(path) as checkpoint:
                return _plain(checkpoint, checkpoint.content, 0)
        except (OSError, ValueError) as error:
            if "Weights only load failed" not in str(refusal) or is_pointer(path):
                return read_state(path)  # raises an error with the reason
            raise WeightsError(
                f"The weights file {path} can't be read without running code from it: {error}. Save the state dict "
                "alone: torch.save(module.state_dict(), PATH)."
            ) from error


def _plain(checkpoint: plain_checkpoint.Checkpoint, node: Any, depth: int) -> Any:
    """Return the tensors in a part of a pickle, in mappings; None for other values."""
    if isinstance(node, Made) and node.name.startswith(_TENSOR):
        return checkpoint.tensor(node)
    if isinstance(node, Made) and isinstance(node.state, dict) and "_parameters" in node.state:
        return {name: checkpoint.tensor(tensor) for name, tensor in _of_module(node.state, "", 0)}
    if isinstance(node, Made) and isinstance(node.state, dict) and depth < _DEEPEST:
        return _plain(checkpoint, node.state, depth + 1)
    mapping = plain_checkpoint.mapping_of(node)
    if depth > _DEEPEST:
        return None
    return {name: _plain(checkpoint, value, depth + 1) for name, value in mapping.items() if isinstance(name, str)}


def _of_module(state: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the pickled tensors of a module that was pickled whole, by the names of its state dict."""
    unsaved = state.get("_non_persistent_buffers_set")
    skipped = unsaved.arguments[0] if isinstance(unsaved, Made) and unsaved.arguments else unsaved or ()
    for kind in ("_parameters", "_buffers"):
        for name, tensor in plain_checkpoint.mapping_of(state.get(kind)).items():
            if isinstance(tensor, Made) and not (kind == "_buffers" and name in skipped):
                yield f"{prefix}{name}", tensor
    for name, layer in plain_checkpoint.mapping_of(state.get("_modules")).items():
        if isinstance(layer, Made) and isinstance(layer.state, dict) and depth < 100:
            yield from _of_module(layer.state, f"{prefix}{name}.", depth + 1)


def _candidates(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensors]]:
    """Yield the mappings of names to tensors in a checkpoint, each with its path."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if tensors:
        yield name, tensors
    for key, value in content.items() if depth < _DEEPEST else ():
        if isinstance(key, str):
            yield from _candidates(value, f"{name}.{key}".lstrip("."), depth + 1)


def _fitted(name: str, tensors: Tensors, expected: Tensors) -> Part:
    """Rename a part's tensors with the prefix that matches most of the module's names."""
    state = {_unwrapped(key): value for key, value in tensors.items()}
    best, prefix = _matched(state, expected, ""), ""
    for candidate in _prefixes(list(state), list(expected)):
        count = _matched(state, expected, candidate)
        if (count, "ema" in candidate) > (best, "ema" in prefix) and count:
            best, prefix = count, candidate
    if not prefix and not best and (shared := _shared(list(expected))):
        added = {f"{shared}{key}": value for key, value in state.items()}
        if added.keys() == expected.keys():
            return Part(name, added, f"+{shared}", 0, len(added))
    inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return Part(name, inner, prefix, len(state) - len(inner), best)


def _matched(state: Tensors, expected: Tensors, prefix: str) -> int:
    return sum(f"{prefix}{key}" in state for key in expected)


def _prefixes(names: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Return possible prefixes of a module's names: those that all names of the file share, or words of trainers."""
    probes = (expected[0], expected[-1]) if expected else ()
    prefixes = {key[: -len(probe)] for key in names for probe in probes if key.endswith(f".{probe}")}
    return sorted(
        prefix
        for prefix in prefixes
        if all(key.startswith(prefix) for key in names) or _OUTER.issuperset(prefix.rstrip(".").split("."))
    )


def _unwrapped(name: str) -> str:
    """Return a name without the parts that torch's own wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _shared(names: Sequence[str]) -> str:
    """Return the first part of the names, with its dot, if all share it; else empty."""
    first = {name.partition(".")[0] for name in names if "." in name}
    return f"{first.pop()}." if len(first) == 1 and all("." in name for name in names) else ""


def _in_precision_of(state: Tensors, expected: Tensors) -> tuple[Tensors, str]:
    """Return the tensors in the module's floating-point precision, and a description of the casts."""
    fitted, cast = dict(state), set()
    converted: dict[Any, Any] = {}  # casting each tensor once keeps tied tensors tied
    for name, tensor in state.items():
        dtype = getattr(expected.get(name), "dtype", None)
        if dtype is not None and dtype.is_floating_point and tensor.is_floating_point() and tensor.dtype != dtype:
            key = (identity(tensor), dtype)
            if key not in converted:
                converted[key] = tensor.to(dtype)
            fitted[name] = converted[key]
            cast.add(f"{_short(tensor.dtype)} to {_short(dtype)}")
    return fitted, ", ".join(sorted(cast))


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
