"""The model in ONNX Runtime, in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression import onnx_block_weights
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, array, record, require_integers
from mlflow_compress.compression.onnx_blocks import Blocks
from mlflow_compress.compression.onnx_graphs import (
    Session,
    final_arithmetic,
    grouped_transposed,
    is_convolutional,
    is_large,
)
from mlflow_compress.meters.environment import has_int8_dot_products
from mlflow_compress.networks.native_flavors import GraphFlavor
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Graph, Model

ONE_SCALE_FOR_ALL = CautionKind(
    "one_scale_for_all",
    short={
        "en": "int8 activations of a decoder share one scale, which reduces quality",
        "ru": "у активаций декодера в int8 один общий масштаб, это снижает качество",
    },
    message={
        "en": "the activations of each layer share one scale (mode={mode}), and a decoder's activations have outliers: "
        "this reduces quality, while int8 weights alone keep it",
        "ru": "у активаций каждого слоя один масштаб (mode={mode}), а у декодера есть выбросы: это снижает качество; "
        "если в int8 только веса, оно сохраняется",
    },
    advice={
        "en": "Remove mode, or set mode=weights.",
        "ru": "Уберите mode или укажите mode=weights.",
    },
)
_BLOCKS = Blocks(bits=8, length=32, symmetric=True, accuracy_level=4)


@dataclass
class OnnxInt8(ExportMethod):
    """ONNX Runtime on the CPU in int8: weights and activations, calibrated on a few samples.

    Weights of convolutions, matrix products and embeddings are stored in int8.

    `weights`: only weights, in symmetric blocks of 32 that share a scale; an embedding tied to the head shares its
    weights. ONNX Runtime's `MatMulNBits` rounds activations to 8 bits too, but with one scale per block and token,
    which loses almost nothing. Convolutions stay in float32. `static`: activation ranges are the smallest and the
    largest values seen in calibration. In convolutional networks all operators up to the last layers are quantised, so
    that activations stay in int8 between them; in other networks only the products, because ranges seen without padding
    do not cover the values that attention masks add. `dynamic`: ranges are computed at each call, for matrix products
    only, without calibration. `auto`: only weights for models that generate, because their activations have outliers
    that do not fit one scale; otherwise as ONNX Runtime's guide recommends: static for convolutional networks, dynamic
    for transformers.

    Source: onnxruntime.quantization.quantize_static (QDQ), quantize_dynamic and matmul_nbits_quantizer.

    Attributes:
        mode: `weights`, or activation ranges that are calibrated (`static`) or computed at each call (`dynamic`), or
            `auto`.
        samples: Calibration samples; None: up to 128, fewer if they are large.
        per_channel: One scale per output channel instead of one per matrix (embeddings always have one).
        reduce_range: Weights use 7 of the 8 bits. CPUs without VNNI add two 8-bit products in 16 bits, and larger sums
            saturate: on these CPUs the outputs become several times more accurate. None: if this CPU has no VNNI.
    """

    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")
    converts: ClassVar[bool] = False
    revision: ClassVar[int] = 4
    extra: ClassVar[str] = "onnx"
    exporter: ClassVar[str] = "ONNX"
    loaded_by: ClassVar[str] = 'onnxruntime.InferenceSession("*.onnx")'
    flavor: ClassVar[GraphFlavor] = "onnx"

    mode: Literal["auto", "weights", "static", "dynamic"] = "auto"
    samples: Annotated[int | None, Ge(1)] = None
    per_channel: bool = True
    reduce_range: bool | None = None

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: The family gives no graphs of the model, there is nothing to quantise, or there is no data for
                trained weights.
        """
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run the export on calibration data if ranges are static, and write `NAME.onnx` in int8."""
        generates = type(family).generate is not Family.generate
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = onnx_block_weights.checked(graphs, Path(plain))
            if self.mode == "weights" or (self.mode == "auto" and generates):
                model.facts["activations"] = "rounded at each call, with a scale for each block of each token"
                return onnx_block_weights.quantise(model, paths, _BLOCKS, True, folder)
            static = {name for name, path in paths.items() if self._is_static(path)}
            inputs: dict[str, list[tuple[Any, ...]]] = {}
            if static:
                require_data_to_score(model, family)
                inputs = record(model, family, {name: Session(path, ()) for name, path in paths.items()}, self.samples)
            for name, graph in graphs.items():
                self._quantise(graph, paths[name], folder / f"{name}.onnx", inputs[name] if name in static else None)
        model.facts["activations"] = "ranges from calibration" if static else "ranges found at each call"
        if generates:
            model.cautions.append(ONE_SCALE_FOR_ALL.of(mode="static" if static else "dynamic"))
        return model

    def _is_static(self, path: Path) -> bool:
        import onnx

        if self.mode != "auto":
            return self.mode == "static"
        return is_convolutional(onnx.load(str(path), load_external_data=False))

    def _quantise(self, graph: Graph, plain: Path, path: Path, inputs: Sequence[tuple[Any, ...]] | None) -> None:
        """Write a graph in int8, with static ranges from these inputs, or with dynamic ranges if they are None."""
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_dynamic,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            """Reader of the recorded inputs."""

            def __init__(self) -> None:
                self.remaining = iter(inputs or ())

            def get_next(self) -> dict[str, Any] | None:
                tensors = next(self.remaining, None)
                return None if tensors is None else dict(zip(graph.inputs, map(array, tensors), strict=True))

        reduce_range = not has_int8_dot_products() if self.reduce_range is None else self.reduce_range
        prepared = plain.with_suffix(".prepared.onnx")
        settings = {"per_channel": self.per_channel, "reduce_range": reduce_range, "weight_type": QuantType.QInt8}
        settings["use_external_data_format"] = is_large(graph)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True, save_as_external_data=is_large(graph))
        model = onnx.load(str(prepared), load_external_data=False)
        if inputs is None:
            del model.graph.value_info[:]  # it transposes weights and would fail on the recorded shapes
            onnx.save(model, str(prepared))
            quantize_dynamic(str(prepared), str(path), op_types_to_quantize=["MatMul", "Gather"], **settings)
            return
        quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=None if is_convolutional(model) else ["Conv", "MatMul", "Gemm", "Gather"],
            nodes_to_exclude=final_arithmetic(model) + (grouped_transposed(model) if self.per_channel else []),
            **settings,
        )

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in ONNX Runtime."""
        return Session(folder / f"{name}.onnx", buffers)
