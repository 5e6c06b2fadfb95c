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
        "en": "static int8 activations of a decoder, which reduce quality",
        "ru": "статические активации int8 в декодере, это снижает качество",
    },
    message={
        "en": "the activations of each layer have one calibrated range, and a decoder's activations have outliers: "
        "this reduces quality, while int8 weights alone keep it",
        "ru": "у активаций каждого слоя один откалиброванный диапазон, а у декодера есть выбросы: это снижает "
        "качество; если в int8 только веса, оно сохраняется",
    },
    advice={
        "en": "Remove activations, or set activations=none.",
        "ru": "Уберите activations или укажите activations=none.",
    },
)


@dataclass
class OpenvinoInt8(ExportMethod):
    """OpenVINO on the CPU in int8: weights, and activations calibrated on a few samples by NNCF.

    Weights of convolutions, matrix products and embeddings are stored in int8, with one scale per output channel.

    `none`: only weights, and no data is needed. `static`: activation ranges are those seen in calibration. Additions
    in attention and everything after the last layers stay in float. `auto`: only weights for models that generate,
    because their activations have outliers that do not fit one scale; static for others.

    With static activations, outlier channels are smoothed first except in convolutional networks (SmoothQuant, with
    NNCF's default 0.95), and weights use 7 of the 8 bits if the compressing CPU has no VNNI: such CPUs add two 8-bit
    products in 16 bits, and larger sums saturate.

    Source: Xiao et al., SmoothQuant, arXiv 2211.10438; nncf.quantize, and nncf.compress_weights (INT8_ASYM) for only
    weights.

    Attributes:
        activations: In int8 with calibrated ranges (`static`), in floating point (`none`), or `auto`.
        samples: Calibration samples; None: up to 128, fewer if they are large.
        preset: `mixed`: asymmetric activations where they have negative values; `performance`: symmetric ones.
        precision: Precision of what is not in int8; `default` uses bfloat16 on CPUs with instructions for it (AMX,
            AVX512-BF16) and float32 on others.
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
            Unsupported: The family gives no graphs of the model, there is nothing to quantise, or there is no data for
                trained weights.
        """
        if self._is_static(family):
            require_data_to_score(model, family)
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run the export on calibration data if needed, and write `NAME.xml` in int8."""
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
                    nncf.Dataset([[array(tensor) for tensor in tensors] for tensors in inputs[path.stem]]),
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
    """Return whether the family's models generate, so that they have decoders."""
    return type(family).generate is not Family.generate
