"""The model in OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.openvino_decoders import opened
from mlflow_compress.compression.openvino_graphs import TOLERANCE, write
from mlflow_compress.networks.native_precision import widened_from
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class Openvino(ExportMethod):
    """OpenVINO on the CPU, in float32 or in the precision that OpenVINO chooses for the CPU.

    All layers of the family's graphs. Weights are stored in the original's precision: float32 or 16 bits. Generation
    runs a graph for each token, and its loop stays in Python; the key-value cache stays in OpenVINO between tokens.

    The files are plain OpenVINO. `model.xml` of a language model takes `input_ids` [batch, tokens], `kept` [kept] (the
    positions whose logits are needed) and the past, `past_key_0`, `past_value_0` and so on [batch, heads, past, width];
    it returns `logits` and `present_key_0`, `present_value_0` and so on.

    Source: openvino.convert_model, compiled with the performance hint LATENCY.

    Attributes:
        precision: Precision of the computation; `default` uses bfloat16 on CPUs with instructions for it (AMX,
            AVX512-BF16) and float32 on others.
    """

    revision: ClassVar[int] = 3
    needs: ClassVar[tuple[str, ...]] = ("openvino",)
    extra: ClassVar[str] = "openvino"
    exporter: ClassVar[str] = "OpenVINO"
    loaded_by: ClassVar[str] = 'openvino.compile_model("*.xml")'
    tolerance: ClassVar[float] = TOLERANCE

    precision: Literal["f32", "default"] = "f32"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.xml` and `NAME.bin` for each graph."""
        for name, graph in graphs.items():
            write(graph, folder / f"{name}.xml", widened_from(model))
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Compile a file."""
        return opened(folder / f"{name}.xml", buffers, self.precision)
