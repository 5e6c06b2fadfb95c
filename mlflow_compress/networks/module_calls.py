"""How a module is called on the output of a user's `batch()`: by position, by name, or with one argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sized
from typing import Any, Literal

from mlflow_compress.networks.export_graphs import Attached

Passing = Literal["one", "by position", "by name"]
Arguments = list[Any] | dict[str, Any]  # by position, or by name


def passing(batch: Any, module: Any, another: Callable[[], Any]) -> Passing:
    """Return how a batch is passed.

    A mapping is passed by name if each key names a parameter of `forward`. A tuple is passed by position if `forward`
    takes that many arguments. So is a list, unless its length follows the batch size: then its items are samples.

    Args:
        batch: output of `batch()`.
        module: the module that takes it.
        another: returns a batch of another size.
    """
    from torch.nn.utils.rnn import PackedSequence

    if isinstance(module, Attached):  # exported by version 0.1, which did not record it
        return "by position" if isinstance(batch, (tuple, list)) else "one"
    if isinstance(batch, PackedSequence):
        return "one"
    signature = _signature(module)
    if isinstance(batch, Mapping):
        return "by name" if signature is None or _are_parameters(batch, signature) else "one"
    if not isinstance(batch, (tuple, list)):
        return "one"
    names = getattr(batch, "_fields", ())
    is_one_too = signature is not None and _binds(signature, 1)
    if names and is_one_too:
        return "by position" if signature is not None and set(names) <= set(signature.parameters) else "one"
    if isinstance(batch, list) and _holds_samples(batch, another):
        return "one"
    return "one" if is_one_too and signature is not None and not _binds(signature, len(batch)) else "by position"


def arguments(batch: Any, how: Passing, module: Any) -> Arguments:
    """Return the arguments of a call; named arguments in the order of `forward`'s parameters."""
    if how == "by position":
        return list(batch)
    if how == "one":
        return [batch]
    signature = _signature(module)
    order = list(signature.parameters) if signature is not None else []
    ordered = sorted(batch, key=lambda name: order.index(name) if name in order else len(order))
    return {name: batch[name] for name in ordered}


def called(module: Any, passed: Arguments) -> Any:
    """Call a module and return its output."""
    return module(**passed) if isinstance(passed, dict) else module(*passed)


def named(passed: Arguments, module: Any) -> dict[str, Any]:
    """Return arguments by the names of `forward`'s parameters; `input_0`, `input_1` if it does not name them."""
    if isinstance(passed, dict):
        return passed
    signature = _signature(module)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values() if signature is not None else ()
    explicit = [parameter.name for parameter in parameters if parameter.kind in kinds]
    names = explicit if len(explicit) >= len(passed) else [f"input_{index}" for index in range(len(passed))]
    return dict(zip(names, passed, strict=False))


def _signature(module: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(getattr(module, "forward", module))
    except (TypeError, ValueError):  # a scripted module has no signature
        return None


def _are_parameters(batch: Mapping[Any, Any], signature: inspect.Signature) -> bool:
    """Return whether all keys name parameters, or `forward` takes any name and the keys fill the required ones."""
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {name for name, parameter in signature.parameters.items() if parameter.kind in by_name}
    if set(batch) <= names:
        return True
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds and all(isinstance(name, str) for name in batch)
    required = {name for name in names if signature.parameters[name].default is inspect.Parameter.empty}
    return takes_any and required <= set(batch)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _holds_samples(batch: list[Any], another: Callable[[], Any]) -> bool:
    """Return whether a batch of another size is a list of another length."""
    try:
        second = another()
    except Exception:  # `batch()` supports one size only
        return False
    return isinstance(second, Sized) and len(second) != len(batch)
