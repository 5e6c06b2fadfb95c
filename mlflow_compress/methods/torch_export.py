"""The model as a graph of ATen operators, exported ahead of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression.exporting import Call, ExportMethod, Values, quiet
from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.networks.native_flavors import GraphFlavor
from mlflow_compress.sockets import Family, Graph, Model, State
from mlflow_compress.torch_devices import LABELS


@dataclass
class TorchExport(ExportMethod):
    """torch.export: the model as one graph of ATen operators, run by torch without the model's own code.

    The graph contains every layer with unchanged weights: the size does not change. The operators are still called one
    by one from Python, and each call's inputs are checked, which costs a tenth of a millisecond: it is the starting
    point of other compilers, not a faster model. Models whose path depends on the values of their inputs can't be
    exported.

    Source: torch.export.export (non-strict), torch.export.save.
    """

    takes: ClassVar[tuple[State, ...]] = ("float", "half")
    devices: ClassVar[tuple[str, ...]] = tuple(LABELS)
    takes_half: ClassVar[bool] = True
    exporter: ClassVar[str] = "torch.export"
    loaded_by: ClassVar[str] = 'torch.export.load("*.pt2").module()'
    flavor: ClassVar[GraphFlavor] = "pytorch"
    tolerance: ClassVar[float] = 1e-3

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export each graph into a file."""
        import torch

        for name, graph in graphs.items():
            dynamic = tuple(
                dict.fromkeys(graph.dynamic.get(name, ()), torch.export.Dim.DYNAMIC) for name in graph.inputs
            )
            with torch.no_grad():
                program = torch.export.export(
                    graph.module, tuple(graph.inputs.values()), dynamic_shapes=dynamic, strict=False
                )
            program.example_inputs = None  # do not save them: a detector's images are as large as its weights
            torch.export.save(program, _file(folder, name))
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a graph on the model's device."""
        import torch
        from torch.export.passes import move_to_device_pass

        with quiet():
            program = torch.export.load(_file(folder, name))
            if model.device != "cpu":
                program = move_to_device_pass(program, model.device)
            return TorchCall(program.module())


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pt2"
