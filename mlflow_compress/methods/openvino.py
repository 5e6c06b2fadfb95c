"""The model in OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.openvino_graphs import TOLERANCE, Compiled, write
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class Openvino(ExportMethod):
    """OpenVINO on the CPU, in float32 or in the CPU's own choice of precision.

    All layers, as the family's graphs hold them. The file is in float32 either way: sizes stay as they were. Generation
    runs a graph for each token, and its loop stays in Python.

    Source: openvino.convert_model, compiled with the performance hint LATENCY.

    Attributes:
        precision: in which the runtime computes; `default` takes bfloat16 on CPUs that have instructions for it (AMX,
            AVX512-BF16), float32 on others.
    """

    needs: ClassVar[tuple[str, ...]] = ("openvino",)
    extra: ClassVar[str] = "openvino"
    exporter: ClassVar[str] = "OpenVINO"
    tolerance: ClassVar[float] = TOLERANCE

    precision: Literal["f32", "default"] = "f32"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.xml` and `NAME.bin` for each graph."""
        for name, graph in graphs.items():
            write(graph, folder / f"{name}.xml")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Compile a file."""
        return Compiled(folder / f"{name}.xml", buffers, self.precision)
