"""The model in OpenVINO, in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression import openvino_graphs
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, array, record, require_integers
from mlflow_compress.compression.openvino_graphs import TOLERANCE, Compiled, write
from mlflow_compress.meters.environment import has_int8_dot_products
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class OpenvinoInt8(ExportMethod):
    """OpenVINO on the CPU in int8: weights and activations, calibrated on a few samples by NNCF.

    Weights of convolutions, matrix products and embeddings are kept in int8, one scale for each output channel. Ranges
    of activations are those seen in calibration. What attention adds and what follows the last layers stays in float.

    Outlier channels of what is no convolutional network are evened out first (SmoothQuant, at NNCF's own 0.95). Weights
    take 7 of the 8 bits where the CPU that compresses has no VNNI: such CPUs add two products of 8 bits in 16, and what
    does not fit is cut off.

    Source: Xiao et al., SmoothQuant, arXiv 2211.10438; nncf.quantize, and nncf.compress_weights for what
    that leaves in float.

    Attributes:
        samples: how many samples the calibration takes; None: up to 128, fewer where they are large.
        preset: `mixed`: asymmetric activations where they have negative values; `performance`: symmetric ones.
        precision: in which the runtime computes what is not in int8; `default` takes bfloat16 on CPUs that have
            instructions for it (AMX, AVX512-BF16), float32 on others.
    """

    needs: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    converts: ClassVar[bool] = False
    revision: ClassVar[int] = 3
    extra: ClassVar[str] = "openvino"
    exporter: ClassVar[str] = "OpenVINO"

    samples: Annotated[int | None, Ge(1)] = None
    preset: Literal["mixed", "performance"] = "mixed"
    precision: Literal["f32", "default"] = "default"

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: the family gives no graphs of the model, there is nothing to quantise, or no data for
                trained weights.
        """
        require_data_to_score(model, family)
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run that on the calibration data, and write `NAME.xml` in int8 for each graph."""
        import nncf
        import openvino

        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = {name: Path(plain) / f"{name}.xml" for name in graphs}
            for name, graph in graphs.items():
                write(graph, paths[name])
            calls = {name: Compiled(path, (), "f32") for name, path in paths.items()}
            for name, graph in graphs.items():
                require_alike(graph, calls[name], TOLERANCE)
            inputs = record(model, family, calls, self.samples)
            for name, path in paths.items():
                converted = openvino.Core().read_model(str(path))
                is_convolutional = openvino_graphs.is_convolutional(converted)
                settings = nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.DISABLE if has_int8_dot_products() else nncf.OverflowFix.ENABLE
                )
                if is_convolutional:
                    settings.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
                quantised = nncf.quantize(
                    converted,
                    nncf.Dataset([[array(tensor) for tensor in given] for given in inputs[name]]),
                    subset_size=len(inputs[name]),
                    preset=nncf.QuantizationPreset(self.preset),
                    model_type=None if is_convolutional else nncf.ModelType.TRANSFORMER,
                    ignored_scope=nncf.IgnoredScope(names=openvino_graphs.final_arithmetic(converted), validate=False),
                    advanced_parameters=settings,
                )
                openvino.save_model(quantised, str(folder / f"{name}.xml"), compress_to_fp16=False)
        return model

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Compile a file."""
        return Compiled(folder / f"{name}.xml", buffers, self.precision)
