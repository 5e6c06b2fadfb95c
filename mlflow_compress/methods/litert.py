"""The model in LiteRT, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.fixed_shapes import NO_CACHE
from mlflow_compress.compression.litert_files import INSTALL, NEEDS, TOLERANCE, LiteRtCall, write
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class Litert(ExportMethod):
    """LiteRT (TensorFlow Lite) on the CPU, in float32: the runtime of Android, with XNNPACK's kernels.

    All layers of the family's graphs; the size does not change. A file takes one sample of one length: samples of a
    batch run one after the other, and shorter texts are filled with zeros.

    Source: litert_torch.convert, ai_edge_litert.interpreter.Interpreter.
    """

    needs: ClassVar[tuple[str, ...]] = NEEDS
    install: ClassVar[str] = INSTALL
    extra: ClassVar[str] = "litert-convert"
    exporter: ClassVar[str] = "LiteRT"
    loaded_by: ClassVar[str] = 'ai_edge_litert.interpreter.Interpreter("*.tflite")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(("asr", "causal_lm", "seq2seq"), NO_CACHE)
    tolerance: ClassVar[float] = TOLERANCE

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.tflite`, and its shapes, for each graph.

        Raises:
            Unsupported: An input has a type that LiteRT does not take.
        """
        for name, graph in graphs.items():
            write(graph, folder / f"{name}.tflite")
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in the interpreter."""
        return LiteRtCall(folder / f"{name}.tflite", buffers)
