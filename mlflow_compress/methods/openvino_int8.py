"""The model in OpenVINO, in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression import openvino_graphs, openvino_weights
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, array, record, require_integers
from mlflow_compress.compression.openvino_decoders import opened
from mlflow_compress.meters.environment import has_int8_dot_products
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Graph, Model

STATIC_DECODER = CautionKind(
    "static_activations",
    short={
        "en": "static int8 activations of a decoder, which costs quality",
        "ru": "статические активации int8 в декодере, это портит качество",
    },
    message={
        "en": "the activations of each layer have one calibrated range, and a decoder's have outliers: this "
        "costs quality that weights alone in int8 keep",
        "ru": "у активаций каждого слоя один откалиброванный диапазон, а у декодера есть выбросы: это "
        "портит качество, с одними весами в int8 оно сохраняется",
    },
    advice={
        "en": "Leave activations out, or say activations=none.",
        "ru": "Уберите activations или укажите activations=none.",
    },
)


@dataclass
class OpenvinoInt8(ExportMethod):
    """OpenVINO on the CPU in int8: weights, and activations calibrated on a few samples by NNCF.

    Weights of convolutions, matrix products and embeddings are kept in int8, one scale for each output channel.

    `none`: weights alone, and no data are needed. `static`: ranges of activations are those seen in calibration. What
    attention adds and what follows the last layers stays in float. `auto`: weights alone for models that generate,
    whose activations have outliers that one scale for all can't hold; static for others.

    With static activations, outlier channels of what is no convolutional network are evened out first (SmoothQuant, at
    NNCF's own 0.95), and weights take 7 of the 8 bits where the CPU that compresses has no VNNI: such CPUs add two
    products of 8 bits in 16, and what does not fit is cut off.

    Source: Xiao et al., SmoothQuant, arXiv 2211.10438; nncf.quantize, and nncf.compress_weights (INT8_ASYM) for weights
    alone.

    Attributes:
        activations: whether they are in int8, with calibrated ranges (`static`), or in floating point (`none`); or
            `auto`.
        samples: how many samples the calibration takes; None: up to 128, fewer where they are large.
        preset: `mixed`: asymmetric activations where they have negative values; `performance`: symmetric ones.
        precision: in which the runtime computes what is not in int8; `default` takes bfloat16 on CPUs that have
            instructions for it (AMX, AVX512-BF16), float32 on others.
    """

    needs: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    converts: ClassVar[bool] = False
    revision: ClassVar[int] = 4
    extra: ClassVar[str] = "openvino"
    exporter: ClassVar[str] = "OpenVINO"
    loaded_by: ClassVar[str] = 'openvino.compile_model("*.xml")'

    activations: Literal["auto", "static", "none"] = "auto"
    samples: Annotated[int | None, Ge(1)] = None
    preset: Literal["mixed", "performance"] = "mixed"
    precision: Literal["f32", "default"] = "default"

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: the family gives no graphs of the model, there is nothing to quantise, or no data for
                trained weights.
        """
        if self._is_static(family):
            require_data_to_score(model, family)
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run that on calibration data if need be, and write `NAME.xml` in int8 for each graph."""
        import nncf
        import openvino

        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            calls = openvino_graphs.in_float(graphs, Path(plain))
            if not self._is_static(family):
                for path in calls:
                    openvino_weights.compress(path, folder / path.name, mode=nncf.CompressWeightsMode.INT8_ASYM)
                model.facts["activations"] = "in floating point"
                return model
            inputs = record(model, family, {path.stem: call for path, call in calls.items()}, self.samples)
            for path in calls:
                converted = openvino.Core().read_model(str(path))
                is_convolutional = openvino_graphs.is_convolutional(converted)
                settings = nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.DISABLE if has_int8_dot_products() else nncf.OverflowFix.ENABLE
                )
                if is_convolutional:
                    settings.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
                quantised = nncf.quantize(
                    converted,
                    nncf.Dataset([[array(tensor) for tensor in given] for given in inputs[path.stem]]),
                    subset_size=len(inputs[path.stem]),
                    preset=nncf.QuantizationPreset(self.preset),
                    model_type=None if is_convolutional else nncf.ModelType.TRANSFORMER,
                    ignored_scope=nncf.IgnoredScope(names=openvino_graphs.final_arithmetic(converted), validate=False),
                    advanced_parameters=settings,
                )
                openvino.save_model(quantised, str(folder / path.name), compress_to_fp16=False)
        model.facts["activations"] = "ranges from calibration"
        if generates(family):
            model.cautions.append(STATIC_DECODER.of())
        return model

    def _is_static(self, family: Family) -> bool:
        return self.activations == "static" or (self.activations == "auto" and not generates(family))

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Compile a file."""
        return opened(folder / f"{name}.xml", buffers, self.precision)


def generates(family: Family) -> bool:
    """Return whether a family generates: its models have decoders."""
    return type(family).generate is not Family.generate
