"""What the methods for ONNX Runtime share: the options of its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow_compress.compression.exporting import Call, ExportMethod, Values
from mlflow_compress.compression.onnx_gpu_sessions import opened
from mlflow_compress.compression.onnx_settings import Level, Provider, SessionSettings
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.native_flavors import GraphFlavor
from mlflow_compress.sockets import Family, Model


@dataclass
class OnnxMethod(ExportMethod):
    """A method whose files ONNX Runtime runs, on the CPU or on an NVIDIA GPU.

    On a GPU, inputs and outputs stay in its memory (IO binding). Operators that the provider has no kernel for run on
    the CPU, with copies in between. TensorRT builds its engines in the first call, which takes minutes.

    Attributes:
        level: Graph optimizations that ONNX Runtime applies when it opens the file: none (`disable`), `basic` (folds
            constants, removes redundant operators), `extended` (also fuses operators) or `all` (also changes layouts).
        spinning: ONNX Runtime's threads spin between operators: faster on free cores, slower on busy ones.
        provider: ONNX Runtime's execution provider on a GPU: `cuda`, or `tensorrt` for models that do not generate.
    """

    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    extra: ClassVar[str] = "onnx"
    exporter: ClassVar[str] = "ONNX"
    loaded_by: ClassVar[str] = 'onnxruntime.InferenceSession("*.onnx")'
    flavor: ClassVar[GraphFlavor | None] = "onnx"

    level: Level = "all"
    spinning: bool = True
    provider: Provider = "cuda"

    @property
    def settings(self) -> SessionSettings:
        """The settings of its sessions."""
        return SessionSettings(self.level, self.spinning, self.provider)

    def compress(self, model: Model, family: Family) -> Model:
        """Export, and open the files (see `ExportMethod.compress`).

        Raises:
            Unsupported: See `ExportMethod.compress`; or TensorRT was requested for a model that generates.
        """
        if self.provider == "tensorrt" and type(family).generate is not Family.generate:
            raise Unsupported(
                "provider=tensorrt does not fit a model that generates: its key-value cache grows with each token, and "
                "TensorRT would build an engine for each length. Use provider=cuda"
            )
        return super().compress(model, family)

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in ONNX Runtime, on the model's device."""
        return opened(folder / f"{name}.onnx", buffers, model.device, self.settings)
