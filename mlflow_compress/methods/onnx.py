"""The model in ONNX Runtime, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.onnx_graphs import TOLERANCE, Session, write
from mlflow_compress.networks.native_flavors import GraphFlavor
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class Onnx(ExportMethod):
    """ONNX Runtime on the CPU, in float32: the same numbers in another runtime, which fuses operators.

    All layers of the family's graphs; the size does not change. Constants folded by the exporter replace the weights
    that they are computed from, and equal tensors are stored once. Generation runs a graph for each token, and its loop
    stays in Python.

    Source: torch.onnx.export (of torch.export), onnxruntime.InferenceSession.
    """

    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")
    extra: ClassVar[str] = "onnx"
    exporter: ClassVar[str] = "ONNX"
    loaded_by: ClassVar[str] = 'onnxruntime.InferenceSession("*.onnx")'
    flavor: ClassVar[GraphFlavor] = "onnx"
    tolerance: ClassVar[float] = TOLERANCE

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.onnx` for each graph."""
        for name, graph in graphs.items():
            write(graph, folder / f"{name}.onnx")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in ONNX Runtime."""
        return Session(folder / f"{name}.onnx", buffers)
