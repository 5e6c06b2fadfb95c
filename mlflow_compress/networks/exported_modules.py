"""What stands in the place of a module of anybody's when it is exported: it takes and gives what the module did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import value_trees
from mlflow_compress.networks.export_graphs import Attached, Calls
from mlflow_compress.networks.module_calls import Passing

# As JSON holds it: `tensor`, or a dictionary: a `value`, or the `kind` of what holds others, with these.
# Of 0.1: also `tuple` of tensors, and the list of a dictionary's keys.
OutputForm = str | list[str] | dict[str, Any]

_PLAIN = (bool, int, float, str, type(None))
_TENSOR = "tensor"


@dataclass(frozen=True)
class CallForm:
    """What an exported module takes and gives.

    Attributes:
        output: the form of what it gives.
        fixed: what among its arguments is no tensor and stays as it was when it was exported, by its place among the
            leaves of the arguments.
        passing: how the module was called on a batch; None in what 0.1 wrote.
        samples: how many samples a call takes; None: any number.
        names: of the arguments, in the order in which the graph takes them; None in older files.
    """

    output: OutputForm
    fixed: Mapping[str, Any]
    passing: Passing | None = None
    samples: int | None = None
    names: Sequence[str] | None = None

    @classmethod
    def of_json(cls, data: Any) -> CallForm:
        """Read what was written as `vars(form)`, or the form of the output alone, as 0.1 wrote it."""
        is_whole = isinstance(data, dict) and "output" in data
        return cls(**data) if is_whole else cls(data, {})


def form_of(output: Any, names: Mapping[str, Any] | None = None) -> OutputForm:
    """Return the form of what a module gave.

    Args:
        output: the output.
        names: what a user's file defines, by name: dataclasses are known again by it.

    Raises:
        Unsupported: it holds what can't be made again.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return _TENSOR
    if isinstance(output, _PLAIN):
        return {"value": output}
    inside = [form_of(child, names) for child in _children(output)]
    if type(output) in (list, tuple):
        return {"kind": type(output).__name__, "children": inside}
    if class_name := next((name for name, value in (names or {}).items() if value is type(output)), ""):
        return {"kind": "class", "name": class_name, "fields": _fields(output), "children": inside}
    if isinstance(output, Mapping) and all(isinstance(key, str) for key in output):
        return {"kind": "dict", "keys": list(output), "children": inside}
    raise Unsupported(
        f"the module returns a {type(output).__name__}, which an exported graph can't return: use tensors, numbers, "
        "strings, None, lists, tuples, dictionaries, or classes that the model's file defines"
    )


def filled(form: OutputForm, tensors: Iterator[Any], names: Mapping[str, Any] | None = None) -> Any:
    """Return an output of a form that holds these tensors, in order."""
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
        return _made(_known(form["name"], names or {}), form["fields"], children)
    return children if form["kind"] == "list" else tuple(children)


class ExportedModule(Attached):
    """Stands in the module's place: takes the tensors among its arguments, and gives what it gave, in its form.

    Args:
        calls: what runs the graph `model`.
        form: of what it takes and gives.
        names: what the user's file defines, by name.
    """

    def __init__(self, calls: Calls, form: CallForm, names: Mapping[str, Any] | None = None) -> None:
        super().__init__(calls)
        self.form = form
        self.names = names or {}

    def __call__(self, *given: Any, **by_name: Any) -> Any:
        """Run the graph.

        Raises:
            ValueError: an argument that is no tensor is not what it was when the module was exported.
            TypeError: arguments by name are not those that it was exported for.
        """
        import torch

        tensors = []
        for place, leaf in enumerate(value_trees.leaves(self._in_order(given, by_name))):
            if isinstance(leaf, torch.Tensor):
                tensors.append(leaf)
            elif isinstance(leaf, _PLAIN) and (fixed := self.form.fixed.get(str(place), leaf)) != leaf:
                raise ValueError(
                    f"the module was exported with the constant argument {fixed!r} and can't take {leaf!r}"
                )
        outputs = self.calls["model"](*tensors)
        return outputs[0] if self.form.output == _TENSOR else filled(self.form.output, iter(outputs), self.names)

    def _in_order(self, given: Sequence[Any], by_name: Mapping[str, Any]) -> list[Any]:
        """Return the arguments in the graph's order: those by name may come in any."""
        names, is_by_name = self.form.names, self.form.passing == "by name"
        if names is None or not (by_name or is_by_name):
            return [*given, *by_name.values()]
        known = {**dict(zip(names, given, strict=False)), **by_name}
        if set(known) != set(names) or len(given) + len(by_name) != len(names) or (is_by_name and given):
            how = "by name" if is_by_name else "in this order"
            raise TypeError(
                f"the module was exported for the arguments {', '.join(names)} ({how}); it got {len(given)} by "
                f"position and these by name: {', '.join(by_name) or 'none'}"
            )
        return [known[name] for name in names]


def fixed_of(arguments: Any) -> dict[str, Any]:
    """Return what among the leaves of arguments is no tensor, by its place.

    Raises:
        Unsupported: it is neither number, text nor None.
    """
    import torch

    fixed = {str(i): leaf for i, leaf in enumerate(value_trees.leaves(arguments)) if not isinstance(leaf, torch.Tensor)}
    if other := next((leaf for leaf in fixed.values() if not isinstance(leaf, _PLAIN)), None):
        raise Unsupported(f"the module takes a {type(other).__name__}: a graph takes only tensors and constants")
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


def _known(name: str, names: Mapping[str, Any]) -> type:
    known = names.get(name)
    if not isinstance(known, type):
        raise TypeError(f"the model's file defines no class {name}")
    return known


def _made(kind: type, fields: Sequence[str], children: Sequence[Any]) -> Any:
    """Make an object of a user's class without its own `__init__` where it is a dataclass that computes fields."""
    values = dict(zip(fields, children, strict=True))
    if issubclass(kind, (Mapping, tuple)) or not is_dataclass(kind):
        return kind(**values)
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
