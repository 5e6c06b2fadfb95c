"""The model in ONNX Runtime, in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression import onnx_fusions
from mlflow_compress.compression.onnx_fusions import Fusions
from mlflow_compress.compression.onnx_graphs import TOLERANCE, write
from mlflow_compress.compression.onnx_method import OnnxMethod
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class Onnx(OnnxMethod):
    """ONNX Runtime in float32: the same numbers in another runtime, which fuses operators.

    All layers of the family's graphs; the size does not change. Constants folded by the exporter replace the weights
    that they are computed from, and equal tensors are stored once. Generation runs a graph for each token, and its loop
    stays in Python.

    Optimum's levels are: O1: `level=basic`; O2: `fusions=transformer`; O3: `fusions=approximate`; O4:
    `onnx_fp16:fusions=approximate` on a GPU.

    Source: torch.onnx.export (of torch.export), onnxruntime.InferenceSession,
    onnxruntime.transformers.optimizer.optimize_model.

    Attributes:
        fusions: Operators that are fused in the file itself: `transformer` (attention, normalisation with its
            addition, GELU with its bias) or `approximate` (also GELU by its approximation with tanh).
    """

    tolerance: ClassVar[float] = TOLERANCE

    fusions: Fusions = "none"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.onnx` for each graph.

        Raises:
            Unsupported: There is nothing to fuse.
        """
        fused: Counter[str] = Counter()
        for name, graph in graphs.items():
            path = folder / f"{name}.onnx"
            write(graph, path)
            if self.fusions != "none":
                fused += onnx_fusions.fuse(path, model.config, is_approximate=self.fusions == "approximate")
        if self.fusions != "none":
            model.facts["fusions"] = onnx_fusions.summary(fused)
        return model
