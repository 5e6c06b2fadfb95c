"""The model in ExecuTorch, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression.executorch_files import TOLERANCE, ExecutorchCall, write
from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.fixed_shapes import NO_CACHE
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class Executorch(ExportMethod):
    """ExecuTorch on the CPU, in float32: PyTorch's runtime for phones, with XNNPACK's kernels.

    All layers of the family's graphs; the size does not change. Operators that XNNPACK lacks run on ExecuTorch's
    portable kernels, which are slow. A program takes one sample of one length: samples of a batch run one after the
    other, and shorter texts are filled with zeros.

    Source: executorch.exir.to_edge_transform_and_lower, XnnpackPartitioner, executorch.runtime.
    """

    needs: ClassVar[tuple[str, ...]] = ("executorch",)
    extra: ClassVar[str] = "executorch"
    exporter: ClassVar[str] = "ExecuTorch"
    loaded_by: ClassVar[str] = 'executorch.runtime.Runtime.get().load_program("*.pte").load_method("forward")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(("asr", "causal_lm", "seq2seq"), NO_CACHE)
    tolerance: ClassVar[float] = TOLERANCE

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.pte`, and its shapes, for each graph.

        Raises:
            Unsupported: An input has a type that ExecuTorch does not take.
        """
        for name, graph in graphs.items():
            model.facts["delegated"] = write(graph, folder / f"{name}.pte")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a program."""
        return ExecutorchCall(folder / f"{name}.pte")
