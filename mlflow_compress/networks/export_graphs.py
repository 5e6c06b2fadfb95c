"""Models as graphs: pure functions of tensors, and what stands in a module's place when another runtime has them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlflow_compress.networks.stored_weights import Held, held
from mlflow_compress.sockets import Graph

Calls = Mapping[str, Callable[..., tuple[Any, ...]]]


def graph(
    forward: Callable[..., tuple[Any, ...]],
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    **parts: Any,
) -> Graph:
    """Make a graph of a function that uses modules.

    Args:
        forward: takes an object that has the parts as attributes, and the inputs by position; gives a tuple of tensors.
        inputs: example tensors by name, in order.
        outputs: the names of what it gives, in order.
        dynamic: axes whose length may change, as in `Graph`.
        parts: the modules that it uses, whose weights are then the graph's.
    """
    from torch import nn

    names = ("self", *inputs)
    signature = inspect.Signature([inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in names])

    def called(*given: Any, **named: Any) -> tuple[Any, ...]:
        return forward(*signature.bind(*given, **named).args)

    called.__signature__ = signature  # type: ignore[attr-defined]  # exporters read the inputs' names from it
    adapter = type("Adapter", (nn.Module,), {"forward": called})()
    for name, part in parts.items():
        setattr(adapter, name, part)
    return Graph(adapter.eval(), dict(inputs), tuple(outputs), dynamic or {})


def twin(module: Any) -> Any:
    """Copy a module but not its weights, to change the copy for export."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


class Attached:
    """What stands in a module's place, and is called like it: `__call__` of a family's subclass runs the graphs.

    Each call runs one graph. It also has `held_weights` (see `stored_weights.held`) and, where it takes another
    floating-point type than float32, that type as `dtype`.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    @property
    def dtype(self) -> Any:
        """The floating-point type of the inputs."""
        return getattr(next(iter(self.calls.values())), "dtype", _float32())

    def held_weights(self) -> Iterator[Held | tuple[Any, bool]]:
        """Return every tensor that holds weights (see `stored_weights.held`)."""
        for call in self.calls.values():
            yield from call.held_weights()  # type: ignore[attr-defined]


class TorchCall:
    """Runs a graph that torch itself holds: a traced, exported or plain module."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.dtype = dtype_of(module) or _float32()

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        given: tuple[Any, ...] = self.module(*inputs)
        return given

    def held_weights(self) -> Iterator[Held]:
        """Return every tensor that holds weights (see `stored_weights.held`)."""
        yield from held(self.module)


def dtype_of(module: Any) -> Any:
    """Return the floating-point type that a module, or what stands in its place, takes; None if it has no weights."""
    if isinstance(module, Attached):
        return module.dtype
    return next((each.dtype for each in module.parameters() if each.is_floating_point()), None)


def _float32() -> Any:
    import torch

    return torch.float32
