"""The replacement of any exported module: it takes the same arguments and returns the same structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.export_graphs import Attached, Calls
from mlflow_compress.networks.module_calls import Passing

# As stored in JSON: `tensor`, or a dictionary with a `value`, or with the `kind` of a container and its children.
# Version 0.1 also wrote `tuple` (of tensors) and the list of a dictionary's keys.
OutputForm = str | list[str] | dict[str, Any]

_PLAIN = (bool, int, float, str, type(None))
_TENSOR = "tensor"


@dataclass(frozen=True)
class CallForm:
    """What an exported module takes and returns.

    Attributes:
        output: form of its output.
        fixed: arguments that are not tensors, which are constants of the export, by their place among the leaves of
            the arguments.
        passing: how the module was called on a batch; None in files of version 0.1.
        samples: number of samples in a call; None: any number.
        names: names of the arguments, in the order in which the graph takes them; None in older files.
    """

    output: OutputForm
    fixed: Mapping[str, Any]
    passing: Passing | None = None
    samples: int | None = None
    names: Sequence[str] | None = None

    @classmethod
    def of_json(cls, stored: Any) -> CallForm:
        """Read what was written as `vars(form)`, or the form of the output alone, as version 0.1 wrote it."""
        is_whole = isinstance(stored, dict) and "output" in stored
        return cls(**stored) if is_whole else cls(stored, {})


def form_of(output: Any, names: Mapping[str, Any] | None = None) -> OutputForm:
    """Return the form of a module's output.

    Args:
        output: the output.
        names: definitions in the user's file, by name, to recognise its classes.

    Raises:
        Unsupported: it contains a value that can't be rebuilt.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return _TENSOR
    if isinstance(output, _PLAIN):
        return {"value": output}
    children = [form_of(child, names) for child in _children(output)]
    if type(output) in (list, tuple):
        return {"kind": type(output).__name__, "children": children}
    if class_name := next((name for name, value in (names or {}).items() if value is type(output)), ""):
        return {"kind": "class", "name": class_name, "fields": _fields(output), "children": children}
    if isinstance(output, Mapping) and all(isinstance(key, str) for key in output):
        return {"kind": "dict", "keys": list(output), "children": children}
    raise Unsupported(
        f"the module returns a {type(output).__name__}, which an exported graph can't return: use tensors, numbers, "
        "strings, None, lists, tuples, dictionaries, or classes that the model's file defines"
    )


def filled(form: OutputForm, tensors: Iterator[Any], names: Mapping[str, Any] | None = None) -> Any:
    """Return an output of this form with these tensors, in order."""
    if form == _TENSOR:
        return next(tensors)
    if form == "tuple":
        return tuple(tensors)
    if isinstance(form, list):
        return dict(zip(form, tensors, strict=True))
    assert isinstance(form, dict)
    if "value" in form:
        return form["value"]
    children = [filled(child, tensors, names) for child in form["children"]]
    if form["kind"] == "dict":
        return dict(zip(form["keys"], children, strict=True))
    if form["kind"] == "class":
        return _rebuilt(_class_named(form["name"], names or {}), form["fields"], children)
    return children if form["kind"] == "list" else tuple(children)


class ExportedModule(Attached):
    """Replaces the module: runs the graph on the tensors among its arguments, and returns an output of the same form.

    Args:
        calls: runs the graph `model`.
        form: form of its arguments and output.
        names: definitions in the user's file, by name.
    """

    def __init__(self, calls: Calls, form: CallForm, names: Mapping[str, Any] | None = None) -> None:
        super().__init__(calls)
        self.form = form
        self.names = names or {}

    def __call__(self, *arguments: Any, **by_name: Any) -> Any:
        """Run the graph.

        Raises:
            ValueError: a constant argument differs from the export.
            TypeError: the arguments differ from the names in the export.
        """
        import torch

        tensors = []
        for index, leaf in enumerate(value_trees.leaves(self._in_order(arguments, by_name))):
            if isinstance(leaf, torch.Tensor):
                tensors.append(leaf)
            elif isinstance(leaf, _PLAIN) and (fixed := self.form.fixed.get(str(index), leaf)) != leaf:
                raise ValueError(
                    f"the module was exported with the constant argument {fixed!r} and can't take {leaf!r}"
                )
        outputs = self.calls["model"](*tensors)
        return outputs[0] if self.form.output == _TENSOR else filled(self.form.output, iter(outputs), self.names)

    def _in_order(self, positional: Sequence[Any], by_name: Mapping[str, Any]) -> list[Any]:
        """Return the arguments in the graph's order: named arguments may come in any order."""
        names, is_by_name = self.form.names, self.form.passing == "by name"
        if names is None or not (by_name or is_by_name):
            return [*positional, *by_name.values()]
        by_argument = {**dict(zip(names, positional, strict=False)), **by_name}
        if (
            set(by_argument) != set(names)
            or len(positional) + len(by_name) != len(names)
            or (is_by_name and positional)
        ):
            manner = "by name" if is_by_name else "in this order"
            raise TypeError(
                f"the module was exported for the arguments {', '.join(names)} ({manner}); it got {len(positional)} by "
                f"position and these by name: {', '.join(by_name) or 'none'}"
            )
        return [by_argument[name] for name in names]


def fixed_of(arguments: Any) -> dict[str, Any]:
    """Return the leaves of arguments that are not tensors, by their place.

    Raises:
        Unsupported: one is neither a number, a string nor None.
    """
    import torch

    fixed = {str(i): leaf for i, leaf in enumerate(value_trees.leaves(arguments)) if not isinstance(leaf, torch.Tensor)}
    if unsupported := next((leaf for leaf in fixed.values() if not isinstance(leaf, _PLAIN)), None):
        raise Unsupported(f"the module takes a {type(unsupported).__name__}: a graph takes only tensors and constants")
    return fixed


def _children(output: Any) -> Sequence[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    if is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, name) for name in _fields(output)]
    return output if isinstance(output, (list, tuple)) else ()


def _fields(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return list(output)
    if isinstance(output, tuple):
        return list(getattr(output, "_fields", ()))
    return [name for name in getattr(output, "__dataclass_fields__", {}) if hasattr(output, name)]


def _class_named(name: str, names: Mapping[str, Any]) -> type:
    definition = names.get(name)
    if not isinstance(definition, type):
        raise TypeError(f"the model's file does not define the class {name}")
    return definition


def _rebuilt(kind: type, fields: Sequence[str], children: Sequence[Any]) -> Any:
    """Make an object of a user's class; of a dataclass without its `__init__`, which may compute fields."""
    values = dict(zip(fields, children, strict=True))
    if issubclass(kind, (Mapping, tuple)) or not is_dataclass(kind):
        return kind(**values)
    rebuilt = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(rebuilt, name, value)
    return rebuilt
