"""A module of anybody's as one graph: what it gives is a tensor, a tuple or a dict, and is so when it is exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_compress.networks.export_graphs import Attached, Calls, graph
from mlflow_compress.sockets import Graph

OutputForm = str | list[str]  # `tensor`, `tuple`, or the keys of a dict


def form_of(output: Any) -> OutputForm:
    """Return the form of what a module gave."""
    import torch

    if isinstance(output, Mapping):
        return list(output)
    return "tensor" if isinstance(output, torch.Tensor) else "tuple"


def flattened(output: Any) -> list[Any]:
    """Return what a module gave as a list: one tensor, those of a tuple, or the values of a dict."""
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, (tuple, list)) else [output]


def module_graph(
    module: Any, inputs: Mapping[str, Any], outputs: Sequence[str], dynamic: Mapping[str, Mapping[int, str]]
) -> Graph:
    """Make a graph of a module that takes tensors by position (see `export_graphs.graph`)."""
    return graph(_call, inputs, outputs, dynamic, module=module)


class ExportedModule(Attached):
    """Stands in the module's place, and gives what it gave, in its form.

    Args:
        calls: what runs the graph `model`.
        form: of what it gives.
    """

    def __init__(self, calls: Calls, form: OutputForm) -> None:
        super().__init__(calls)
        self.form = form

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph."""
        outputs = self.calls["model"](*inputs)
        if self.form == "tensor":
            return outputs[0]
        return outputs if self.form == "tuple" else dict(zip(self.form, outputs, strict=True))


def _call(parts: Any, *inputs: Any) -> tuple[Any, ...]:
    return tuple(flattened(parts.module(*inputs)))
