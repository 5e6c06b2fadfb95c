"""The model in ONNX Runtime, in float16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.compression import onnx_fusions
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.onnx_fusions import Fusions
from mlflow_compress.compression.onnx_graphs import TOLERANCE, Session, halve, has_operator, write
from mlflow_compress.compression.onnx_method import OnnxMethod
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class OnnxFp16(OnnxMethod):
    """ONNX Runtime with float16 weights: half the size.

    All layers of the family's graphs; inputs and outputs stay in float32. ONNX Runtime has few float16 kernels for x86:
    there it casts weights and activations to float32 and back around most operators, which costs time instead of
    saving it. GPUs compute in float16.

    Source: onnxruntime.transformers.float16.convert_float_to_float16,
    onnxruntime.transformers.optimizer.optimize_model.

    Attributes:
        fusions: Operators that are fused in the file itself, before the conversion: `transformer` (attention,
            normalisation with its addition, GELU with its bias) or `approximate` (also GELU by its approximation with
            tanh).
    """

    fusions: Fusions = "none"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.onnx` for each graph, in float16.

        Raises:
            Unsupported: There are no float32 weights, there is an LSTM, or there is nothing to fuse.
        """
        fused: Counter[str] = Counter()
        for name, graph in graphs.items():
            path = folder / f"{name}.onnx"
            write(graph, path)
            if has_operator(path, "LSTM"):
                raise Unsupported("ONNX Runtime crashes when it opens an LSTM in float16 on a CPU")
            if self.fusions != "none":
                fused += onnx_fusions.fuse(path, model.config, is_approximate=self.fusions == "approximate")
            require_alike(graph, Session(path, ()), TOLERANCE)
        if self.fusions != "none":
            model.facts["fusions"] = onnx_fusions.summary(fused)
        halved = sum(halve(folder / f"{name}.onnx") for name in graphs)
        if not halved:
            raise Unsupported("there is no float32 weight to convert to float16")
        return model
