"""State of a module outside its state dict: plain attributes, and buffers that are not saved."""

from __future__ import annotations

import functools
import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_ARRAY = "\0array"  # key of an array's bytes in saved values
Values = dict[str, dict[str, Any]]  # by the name of the layer, then of the attribute


def values_of(module: Any) -> Values:
    """Return copies of a module's values outside its state dict.

    Tensors and arrays are copied, and lists, tuples, sets and dictionaries of these and of numbers and texts. Other
    objects are represented by a mark, which differs after a change that their pickle shows.
    """
    return {name: {key: _copied(value) for key, value in _attributes(layer)} for name, layer in module.named_modules()}


def structure_of(module: Any) -> dict[str, str]:
    """Return the class of each layer and the shape of each entry of the state dict, by name."""
    classes = {name: type(layer).__name__ for name, layer in module.named_modules()}
    shapes = {
        name: f"a tensor of shape {list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        for name, value in module.state_dict().items()
    }
    return classes | shapes


def changed(before: Values, after: Values) -> Values:
    """Return the values that have changed or are new."""
    differences = {
        layer: {
            key: value
            for key, value in values.items()
            if key not in before.get(layer, {}) or not _same(before[layer][key], value)
        }
        for layer, values in after.items()
    }
    return {layer: values for layer, values in differences.items() if values}


def kept_and_lost(values: Values) -> tuple[Values, list[str]]:
    """Return the values that can be saved as data, and the names of the others."""
    storable: Values = {}
    lost = []
    for layer, attributes in values.items():
        for key, value in attributes.items():
            if _is_plain(value):
                storable.setdefault(layer, {})[key] = value
            else:
                lost.append(f"{layer}.{key}".lstrip("."))
    return storable, lost


def put_back(values: Mapping[str, Mapping[str, Any]], module: Any) -> None:
    """Restore the values of a module's layers, for layers that exist."""
    layers = dict(module.named_modules())
    for name, attributes in values.items():
        for key, value in attributes.items() if name in layers else ():
            if key in layers[name]._buffers:
                layers[name]._buffers[key] = value
            else:
                setattr(layers[name], key, _copied(value))


def fitting(values: Mapping[str, Mapping[str, Any]], module: Any) -> Values:
    """Return the values that a module of another width or depth can use.

    Values of missing layers, and tensors with another shape there, are left out.
    """
    layers = dict(module.named_modules())
    present = {
        name: {key: value for key, value in attributes.items() if _fits(value, getattr(layers[name], key, value))}
        for name, attributes in values.items()
        if name in layers
    }
    return {name: attributes for name, attributes in present.items() if attributes}


def _fits(value: Any, current: Any) -> bool:
    return not hasattr(value, "shape") or getattr(current, "shape", value.shape) == value.shape


def tensors_outside(module: Any) -> list[str]:
    """Return names of tensors, and of lists of layers, that a module holds outside its state dict and submodules."""
    registered = set(module.modules())
    return [
        f"{name}.{key}".lstrip(".")
        for name, layer in module.named_modules()
        for key, value in _attributes(layer)
        if _holds_tensor(value, registered)
    ]


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield a layer's own attributes and unsaved buffers, without those of torch's base class and of its hooks."""
    import torch

    for name in layer._non_persistent_buffers_set:
        yield name, layer._buffers.get(name)
    computed = {_computed_by(hook) for hook in layer._forward_pre_hooks.values()}
    saved = {id(tensor) for tensor in (*layer.parameters(), *layer.buffers())}
    for name, value in vars(layer).items():
        if name in _torchs_own() or name in computed or isinstance(value, torch.nn.Module):
            continue
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(id(item) in saved for item in items):  # an RNN also keeps its parameters in a list
            continue
        yield name, value


def _computed_by(hook: Any) -> str:
    """Return the weight that a hook of torch computes before each call: weight norm, spectral norm, pruning."""
    return str(getattr(hook, "_tensor_name", getattr(hook, "name", "")))


@functools.cache
def _torchs_own() -> frozenset[str]:
    import torch

    return frozenset(vars(torch.nn.Module())) | {"_forward_pre_hooks_with_kwargs", "_flat_weights"}


def packed(values: Values) -> Values:
    """Return values in a form that torch loads without running code: NumPy arrays as bytes in tensors."""
    return {layer: {key: _packed(value) for key, value in values[layer].items()} for layer in values}


def unpacked(values: Values) -> Values:
    """Undo `packed`."""
    return {layer: {key: _unpacked(value) for key, value in values[layer].items()} for layer in values}


def _packed(value: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(value, (np.ndarray, np.generic)):
        content = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.nbytes else torch.empty(0)
        is_scalar = isinstance(value, np.generic)
        return {_ARRAY: content, "dtype": value.dtype.str, "shape": list(value.shape), "is_scalar": is_scalar}
    return _mapped(_packed, value)


def _unpacked(value: Any) -> Any:
    import numpy as np

    if isinstance(value, dict) and _ARRAY in value:
        array = np.frombuffer(value[_ARRAY].numpy().tobytes(), np.dtype(value["dtype"])).reshape(value["shape"]).copy()
        return array[()] if value["is_scalar"] else array
    return _mapped(_unpacked, value)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(function, value))
    return {key: function(inner) for key, inner in value.items()} if type(value) is dict else value


def _is_array(value: Any) -> bool:
    """Return whether a value is a plain NumPy array or number, without objects and without a custom class."""
    import numpy as np

    is_numpy = type(value) is np.ndarray or (isinstance(value, np.generic) and not isinstance(value, np.void))
    return bool(is_numpy and not value.dtype.hasobject and value.dtype.names is None)


class _Mark:
    """Represents an object that is not copied."""

    def __init__(self, value: Any) -> None:
        try:
            self.content: object = hashlib.sha256(pickle.dumps(value)).hexdigest()
        except Exception:  # objects that can't be pickled raise anything
            self.content = id(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Mark) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


def _copied(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().clone() if type(value) in (torch.Tensor, torch.nn.Parameter) else _Mark(value)
    if _is_array(value):
        return value.copy()
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_copied(item) for item in value) if type(value) in (list, tuple) else type(value)(value)
    if type(value) is dict:
        return {key: _copied(inner) for key, inner in value.items()}
    is_constant = isinstance(value, (torch.Size, torch.dtype, torch.device)) or type(value) in _PLAIN
    return value if is_constant else _Mark(value)


def _same(one: Any, other: Any) -> bool:
    import torch

    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        are_alike = one.dtype == other.dtype and one.shape == other.shape
        return are_alike and bool(((one == other) | ((one != one) & (other != other))).all())
    if _is_array(one):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other) or (one != one and other != other)


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple, set):
        return all(_is_plain(item) for item in value)
    if type(value) is dict:
        return all(type(key) in _PLAIN and _is_plain(inner) for key, inner in value.items())
    return not isinstance(value, (_Mark, frozenset))


def _holds_tensor(value: Any, registered: Set[Any]) -> bool:
    import torch

    if isinstance(value, torch.nn.Module):
        return value not in registered and any(True for _ in value.parameters())
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return isinstance(value, torch.Tensor) or any(_holds_tensor(item, registered) for item in items)
