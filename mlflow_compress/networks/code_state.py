"""What a user's code holds beside the module's own values: globals, attributes of classes, and hooks of the layers.

None of it is saved with a model. By what changes meanwhile one can tell what `load_weights` set there.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEEPEST = 5  # of what lies in each other; a value below that is told from others as an object
_HOOKS = {"_forward_hooks": "a forward hook", "_forward_pre_hooks": "a forward pre-hook"}
_CONTAINERS = (dict, list, tuple, set, frozenset)
_MOST = 1_000  # of the items of a container; a larger one is data, and told from others as an object
Places = dict[str, object]  # a value that equals another of the same place where nothing was set


def places_of(codes: Mapping[str, types.ModuleType], module: Any) -> Places:
    """Return a mark of all that modules of code hold, by what they are called, and of the hooks of a network's layers.

    Numbers, texts and containers are compared by value, tensors also by how often they were written to, settings
    (dataclasses, objects of the code's own classes) by their attributes, and all others, networks too, as objects.
    """
    names = {code.__name__ for code in codes.values()}
    places: Places = {}
    marks = _Marks(names)
    for where, code in codes.items():
        for name, value in _held(vars(code)):
            places[f"{name} in {where}"] = marks.of(value)
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
    """Name the places that hold another value than before, or did not hold any."""
    return sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))


def _held(attributes: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return what may be set: not what Python keeps there itself, and no imported modules."""
    return [
        (name, value)
        for name, value in attributes.items()
        if not (name.startswith("__") and name.endswith("__")) and not isinstance(value, types.ModuleType)
    ]


class _Object:
    """Stands for an object that equals no other. It holds the object, whose id would be taken by a later one."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self._value is other._value

    __hash__ = None  # type: ignore[assignment]


class _Marks:
    """Makes marks of values. What lies in several places is looked into once, so that circles end.

    Args:
        names: of the modules whose objects are looked into.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._seen: set[int] = set()

    def of(self, value: Any, depth: int = 0) -> object:
        """Return the mark of a value, which lies this deep in others."""
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
            return type(value), {key: self.of(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value), [self.of(each, depth + 1) for each in value]
        if isinstance(value, (set, frozenset)):
            return type(value), set(value)
        if _is_settings(value, self._names):
            return _Object(value), {key: self.of(each, depth + 1) for key, each in vars(value).items()}
        return _Object(value)


def _is_settings(value: Any, names: set[str]) -> bool:
    import torch

    if isinstance(value, (type, torch.nn.Module)) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    known = isinstance(value, (argparse.Namespace, types.SimpleNamespace)) or dataclasses.is_dataclass(value)
    return known or (type(value).__module__ in names and not isinstance(value, types.FunctionType))
