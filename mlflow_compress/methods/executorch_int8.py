"""The model in ExecuTorch, in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression import coverage
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.executorch_files import TOLERANCE, ExecutorchCall, Int8, write
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, record
from mlflow_compress.compression.fixed_shapes import NO_CACHE
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class ExecutorchInt8(ExportMethod):
    """ExecuTorch on the CPU in int8: weights, and activations calibrated or at each call.

    `static`: convolutions, linear layers, additions, multiplications and concatenations up to the last layers compute
    in int8, with calibrated ranges. `dynamic`: linear layers only, with ranges found at each call; no data is needed.
    Weights have one scale per output channel. The rest is float32, and operators that XNNPACK lacks run on
    ExecuTorch's portable kernels, which are slow.

    A program takes one sample of one length: samples of a batch run one after the other, and shorter texts are filled
    with zeros.

    Source: executorch.backends.xnnpack.quantizer.XNNPACKQuantizer, torchao.quantization.pt2e.

    Attributes:
        mode: Ranges of activations: calibrated (`static`), or found at each call (`dynamic`).
        samples: Calibration samples for `static`; None: up to 128, fewer if they are large.
    """

    needs: ClassVar[tuple[str, ...]] = ("executorch", "torchao")
    converts: ClassVar[bool] = False
    extra: ClassVar[str] = "executorch"
    exporter: ClassVar[str] = "ExecuTorch"
    loaded_by: ClassVar[str] = 'executorch.runtime.Runtime.get().load_program("*.pte").load_method("forward")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(("asr", "causal_lm", "seq2seq"), NO_CACHE)

    mode: Literal["static", "dynamic"] = "static"
    samples: Annotated[int | None, Ge(1)] = None

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run the export on calibration data if needed, and write `NAME.pte` in int8.

        Raises:
            Unsupported: There is nothing to quantise, or there is no data for trained weights.
        """
        if self.mode == "static":
            require_data_to_score(model, family)
        total = coverage.total(model.module)
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            calls = {}
            for name, graph in graphs.items():
                write(graph, Path(plain) / f"{name}.pte")
                calls[name] = ExecutorchCall(Path(plain) / f"{name}.pte")
                require_alike(graph, calls[name], TOLERANCE)
            inputs: dict[str, list[tuple[Any, ...]]] = {name: [] for name in graphs}
            if self.mode == "static":
                inputs = record(model, family, {name: graph.module for name, graph in graphs.items()}, self.samples)
            integers = 0
            for name, graph in graphs.items():
                rows = [row for tensors in inputs[name] for row in calls[name].samples(*tensors)]
                quantiser = Int8(rows, is_dynamic=self.mode == "dynamic")
                model.facts["delegated"] = write(graph, folder / f"{name}.pte", quantiser)
                integers += quantiser.integers
        if not integers:
            raise Unsupported("there is no layer that the method quantises")
        coverage.record(model, min(integers, total), total)
        model.facts["activations"] = "ranges from calibration" if self.mode == "static" else "ranges found at each call"
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Load a program."""
        return ExecutorchCall(folder / f"{name}.pte")
