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
    """OpenVINO on the CPU, in float32 or in the CPU's own choice of precision.

    All layers, as the family's graphs hold them. Weights are written in the original's precision: float32, or its 16
    bits. Generation runs a graph for each token, and its loop stays in Python; keys and values of the past stay in
    OpenVINO between tokens.

    The files are plain OpenVINO. `model.xml` of a language model takes `input_ids` [batch, tokens], `kept` [kept] (the
    positions whose logits are wanted) and the past, `past_key_0`, `past_value_0` and so on [batch, heads, past, width];
    it gives `logits` and `present_key_0`, `present_value_0` and so on.

    Source: openvino.convert_model, compiled with the performance hint LATENCY.

    Attributes:
        precision: in which the runtime computes; `default` takes bfloat16 on CPUs that have instructions for it (AMX,
            AVX512-BF16), float32 on others.
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
