"""Models as graphs: pure functions of tensors, and the objects that replace a module when a runtime runs its graphs."""

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
        forward: takes an object with the parts as attributes, and the inputs by position; returns a tuple of tensors.
        inputs: example tensors by name, in order.
        outputs: names of the outputs, in order.
        dynamic: axes whose length may change, as in `Graph`.
        parts: modules that it uses; their weights become the graph's.
    """
    from torch import nn

    names = ("self", *inputs)
    signature = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names])

    def run(*arguments: Any, **by_name: Any) -> tuple[Any, ...]:
        return forward(*signature.bind(*arguments, **by_name).args)

    run.__signature__ = signature  # type: ignore[attr-defined]  # exporters read the inputs' names from it
    adapter = type("Adapter", (nn.Module,), {"forward": run})()
    for name, part in parts.items():
        setattr(adapter, name, part)
    return Graph(adapter.eval(), dict(inputs), tuple(outputs), dynamic or {})


def twin(module: Any) -> Any:
    """Copy a module without copying its weights, so that the copy can be changed for export."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


class Attached:
    """Replaces a module and is called like it: `__call__` of a family's subclass runs the graphs.

    Each of the calls runs one graph. It also has `held_weights` (see `stored_weights.held`) and, if its floating-point
    type is not float32, that type as `dtype`.
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
    """Runs a graph in torch: a traced, exported or plain module."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.dtype = dtype_of(module) or _float32()

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        outputs: tuple[Any, ...] = self.module(*inputs)
        return outputs

    def held_weights(self) -> Iterator[Held]:
        """Return every tensor that holds weights (see `stored_weights.held`)."""
        yield from held(self.module)


def dtype_of(module: Any) -> Any:
    """Return the floating-point type of a module, or of its replacement; None if it has no weights."""
    if isinstance(module, Attached):
        return module.dtype
    return next((parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()), None)


def _float32() -> Any:
    import torch

    return torch.float32
