"""The model in ONNX Runtime, in float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.onnx_graphs import TOLERANCE, Session, halve, has_operator, write
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.native_flavors import GraphFlavor
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class OnnxFp16(ExportMethod):
    """ONNX Runtime on the CPU with float16 weights: half the size.

    All layers of the family's graphs; inputs and outputs stay in float32. ONNX Runtime has few float16 kernels for x86:
    there it casts weights and activations to float32 and back around most operators, which costs time instead of
    saving it.

    Source: onnxruntime.transformers.float16.convert_float_to_float16.
    """

    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")
    extra: ClassVar[str] = "onnx"
    exporter: ClassVar[str] = "ONNX"
    loaded_by: ClassVar[str] = 'onnxruntime.InferenceSession("*.onnx")'
    flavor: ClassVar[GraphFlavor] = "onnx"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.onnx` for each graph, in float16.

        Raises:
            Unsupported: There are no float32 weights, or there is an LSTM.
        """
        for name, graph in graphs.items():
            write(graph, folder / f"{name}.onnx")
            if has_operator(folder / f"{name}.onnx", "LSTM"):
                raise Unsupported("ONNX Runtime crashes when it opens an LSTM in float16 on a CPU")
            require_alike(graph, Session(folder / f"{name}.onnx", ()), TOLERANCE)
        halved = sum(halve(folder / f"{name}.onnx") for name in graphs)
        if not halved:
            raise Unsupported("there is no float32 weight to convert to float16")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in ONNX Runtime."""
        return Session(folder / f"{name}.onnx", buffers)
