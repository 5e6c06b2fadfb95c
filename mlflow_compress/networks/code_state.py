"""State of a user's code outside the module: globals, class attributes, and hooks of layers.

It is not saved with a model. Comparing it before and after shows what `load_weights` set there.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEEPEST = 5  # nested levels; deeper values are compared by identity
_HOOKS = {"_forward_hooks": "a forward hook", "_forward_pre_hooks": "a forward pre-hook"}
_CONTAINERS = (dict, list, tuple, set, frozenset)
_MOST = 1_000  # items of a container; a larger one is data, and is compared by identity
Places = dict[str, object]  # a mark for each place, equal to an earlier mark if nothing was set there


def places_of(codes: Mapping[str, types.ModuleType], module: Any) -> Places:
    """Return marks of all values in modules of code, by name, and of the hooks of a network's layers.

    Numbers, texts and containers are compared by value, tensors by identity and the number of writes, settings
    (dataclasses, objects of the code's own classes) by their attributes, and all others, networks too, by identity.
    """
    names = {code.__name__ for code in codes.values()}
    places: Places = {}
    marks = _Marks(names)
    for module_name, code in codes.items():
        for name, value in _held(vars(code)):
            places[f"{name} in {module_name}"] = marks.of(value)
    classes = {kind for layer in module.modules() for kind in type(layer).__mro__ if kind.__module__ in names}
    for kind in classes:
        for name, value in _held(vars(kind)):
            places[f"{kind.__qualname__}.{name}"] = marks.of(value)
    for name, layer in module.named_modules():
        for attribute, word in _HOOKS.items():
            hooks = getattr(layer, attribute, None) or {}
            places[f"{word} of {name or 'the module'}"] = [_Object(hook) for hook in hooks.values()]
    return places


def set_meanwhile(before: Places, after: Places) -> list[str]:
    """Return the names of places whose value has changed or is new."""
    return sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))


def _held(attributes: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return the attributes that code may set, without Python's own and imported modules."""
    return [
        (name, value)
        for name, value in attributes.items()
        if not (name.startswith("__") and name.endswith("__")) and not isinstance(value, types.ModuleType)
    ]


class _Object:
    """A mark that compares an object by identity. It holds the object, so its id can't be used again."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self._value is other._value

    __hash__ = None  # type: ignore[assignment]


class _Marks:
    """Makes marks of values. An object is opened once, so that cycles end.

    Args:
        names: names of the modules whose objects are opened.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._seen: set[int] = set()

    def of(self, value: Any, depth: int = 0) -> object:
        """Return the mark of a value at this depth."""
        import torch

        if type(value) in _PLAIN:
            return type(value), value
        if isinstance(value, torch.Tensor):
            return _Object(value), 0 if value.is_inference() else value._version
        is_data = isinstance(value, _CONTAINERS) and len(value) > _MOST
        if depth >= _DEEPEST or is_data or id(value) in self._seen:
            return _Object(value)
        self._seen.add(id(value))
        if isinstance(value, dict):
            return type(value), {key: self.of(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value), [self.of(item, depth + 1) for item in value]
        if isinstance(value, (set, frozenset)):
            return type(value), set(value)
        if _is_settings(value, self._names):
            return _Object(value), {key: self.of(inner, depth + 1) for key, inner in vars(value).items()}
        return _Object(value)


def _is_settings(value: Any, names: set[str]) -> bool:
    import torch

    if isinstance(value, (type, torch.nn.Module)) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    is_record = isinstance(value, (argparse.Namespace, types.SimpleNamespace)) or dataclasses.is_dataclass(value)
    return is_record or (type(value).__module__ in names and not isinstance(value, types.FunctionType))
