"""The model traced into TorchScript, which torch runs without the model's Python code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.compression.exporting import Call, ExportMethod, Values, quiet
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.sockets import Family, Graph, Model, NativeFlavor, State
from mlflow_compress.torch_devices import LABELS


@dataclass
class Torchscript(ExportMethod):
    """TorchScript: the model traced once, run by torch without Python.

    The graph contains every layer with unchanged weights: the size does not change. It saves Python's share of a call,
    which is large for a small model and small for a large one. The traces are not frozen or optimised for inference: on
    CPUs neither made large models faster, and the latter made small ones slower. Tracing fixes every decision that
    depends on input values: if other inputs show a difference, the model is skipped.

    torch marks TorchScript as deprecated in favour of torch.export, which has no own runtime in Python.

    Source: torch.jit.trace, torch.jit.save.
    """

    takes: ClassVar[tuple[State, ...]] = ("float", "half")
    devices: ClassVar[tuple[str, ...]] = tuple(LABELS)
    takes_half: ClassVar[bool] = True
    exporter: ClassVar[str] = "TorchScript"
    loaded_by: ClassVar[str] = 'torch.jit.load("*.ts")'
    tolerance: ClassVar[float] = 1e-3

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Trace each graph into a file."""
        import torch

        for name, graph in graphs.items():
            with torch.no_grad():
                traced = torch.jit.trace(graph.module, tuple(graph.inputs.values()), check_trace=False)
            torch.jit.save(traced, str(_file(folder, name)))
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a graph on the model's device."""
        import torch

        with quiet():
            module = torch.jit.load(str(_file(folder, name)), map_location=model.device)
        _move_constants(module, model.device)
        return TorchCall(module)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Refuse: MLflow reads TorchScript with `torch.load`, which requires `weights_only=False` for it."""
        raise Unsupported(
            "MLflow's pytorch flavor reads TorchScript only as it reads pickles; use torch_export, which has a flavor"
        )


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.ts"


def _move_constants(module: Any, device: str) -> None:
    """Make the graphs create their tensors on this device: a trace contains the device it was made on."""
    for part in module.modules():
        for method in part._c._method_names():  # `forward`, and `forward1` and so on for layers that are used twice
            for node in part._c._get_method(method).graph.findAllNodes("prim::Constant"):
                if node.output().type().kind() == "DeviceObjType":
                    node.s_("value", device)
