"""Find plugins: one per file in the package's own folders, and those that other distributions declare.

A distribution adds a method with an entry point in the group `mlflow_compress.methods`: `my_method = "module:Class"`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.sockets import Family, Method, Metric, Renderer

if TYPE_CHECKING:
    import pydantic

KINDS: Mapping[str, tuple[str, type]] = {
    "families": ("family", Family),
    "methods": ("method", Method),
    "metrics": ("metric", Metric),
    "renderers": ("renderer", Renderer),
}


@functools.cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of all plugins of a kind (`families`, `methods`, `metrics`, `renderers`), sorted."""
    return tuple(sorted({*own(kind), *_foreign(kind)}))


@functools.cache
def find(kind: str, name: str) -> type[Any]:
    """Import a plugin's class.

    Raises:
        UnknownName: There is no such plugin.
        RecipeError: The plugin of another distribution can't be imported.
    """
    singular, socket = KINDS[kind]
    if name in own(kind):
        module = importlib.import_module(f"mlflow_compress.{kind}.{name}")
        classes = [  # of this module only: in Python 3.10 an imported `Mapping[str, int]` is a class, too
            cls
            for _, cls in inspect.getmembers(module, inspect.isclass)
            if cls.__module__ == module.__name__ and issubclass(cls, socket)
        ]
        return classes[0]
    if name in (foreign := _foreign(kind)):
        try:
            plugin = foreign[name].load()
        except Exception as error:
            origin = foreign[name].value
            raise RecipeError(f"The {singular} {name!r} ({origin}) can't be imported: {error}") from error
        if not (inspect.isclass(plugin) and issubclass(plugin, socket)):
            raise RecipeError(f"The {singular} {name!r} ({foreign[name].value}) is not a {socket.__name__}.")
        return plugin
    raise UnknownName(singular, name, names(kind))


def check(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options against the plugin's typed fields, and convert text values.

    Returns:
        The converted options, without defaults.

    Raises:
        UnknownName: There is no such plugin or option.
        RecipeError: A value has the wrong type or is out of range.
    """
    plugin = find(kind, name)
    fields = {field.name for field in dataclasses.fields(plugin)}
    for key in options:
        if key not in fields:
            raise UnknownName(f"option of {name}", str(key), fields)
    instance = _validated(plugin, name, options)
    return {key: getattr(instance, key) for key in options}


def build(kind: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Return a plugin with its options.

    Raises:
        UnknownName: There is no such plugin or option.
        RecipeError: A value has the wrong type or is out of range.
    """
    return find(kind, name)(**check(kind, name, options or {}))


def about(kind: str, name: str) -> str:
    """Return the first line of a plugin's documentation."""
    return (inspect.getdoc(find(kind, name)) or "").partition("\n")[0]


def options_of(kind: str, name: str) -> dict[str, tuple[str, Any]]:
    """Return a plugin's options by name: the type of their values, and their default."""
    plugin = find(kind, name)
    hints = typing.get_type_hints(plugin)
    return {field.name: (_takes(hints[field.name]), _default(field)) for field in dataclasses.fields(plugin)}


def _takes(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(str(choice) for choice in typing.get_args(hint))
    return str(getattr(hint, "__name__", hint))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _validated(plugin: Any, name: str, options: Mapping[str, Any]) -> Any:
    import pydantic

    try:
        built = _adapter(plugin).validate_python(dict(options))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{name}: option {option}={first['input']!r} is invalid: {first['msg'].lower()}.") from None
    for option in options:
        if not _is_finite(getattr(built, option, None)):
            raise RecipeError(f"{name}: option {option}={options[option]!r} is invalid: numbers must be finite.")
    return built


def _is_finite(value: Any) -> bool:
    """Return whether a value, and each value of a list or tuple, is not NaN or an infinite number."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@functools.cache
def _adapter(plugin: Any) -> pydantic.TypeAdapter[Any]:
    """Return the adapter that validates the options of a plugin's class."""
    import pydantic

    return pydantic.TypeAdapter(plugin)


@functools.cache
def own(kind: str) -> tuple[str, ...]:
    """Return the names of the package's own plugins of a kind, sorted."""
    package = importlib.import_module(f"mlflow_compress.{kind}")
    return tuple(module.name for module in pkgutil.iter_modules(package.__path__))


@functools.cache
def _foreign(kind: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=f"mlflow_compress.{kind}")}
