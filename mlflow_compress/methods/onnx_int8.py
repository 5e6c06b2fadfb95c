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
        "en": "int8 activations of a decoder share one scale, which costs quality",
        "ru": "у активаций декодера в int8 один масштаб на все, это портит качество",
    },
    message={
        "en": "the activations of each layer share one scale (mode={mode}), and a decoder's have outliers: this "
        "costs quality that weights alone in int8 keep",
        "ru": "у активаций каждого слоя один масштаб (mode={mode}), а у декодера есть выбросы: это портит "
        "качество, с одними весами в int8 оно сохраняется",
    },
    advice={
        "en": "Leave mode out, or say mode=weights.",
        "ru": "Уберите mode или укажите mode=weights.",
    },
)
_BLOCKS = Blocks(bits=8, length=32, symmetric=True, accuracy_level=4)


@dataclass
class OnnxInt8(ExportMethod):
    """ONNX Runtime on the CPU in int8: weights and activations, calibrated on a few samples.

    Weights of convolutions, matrix products and embeddings are kept in int8.

    `weights`: weights alone, in symmetric blocks of 32 that share a scale; an embedding tied to the head shares its
    weights. ONNX Runtime's `MatMulNBits` rounds activations to 8 bits too, but with a scale for each block of each
    token, which loses next to nothing. Convolutions stay in float32. `static`: the ranges of activations are
    the least and the greatest values seen in calibration. Of convolutional networks all operators are quantised up to
    the last layers, so that activations stay in int8 between them; of others the products alone, since ranges seen
    without padding do not fit what attention masks add. `dynamic`: ranges are found at each call, of matrix products
    only, and nothing is calibrated. `auto`: weights alone for models that generate, whose activations have outliers
    that one scale for all can't hold; for others what ONNX Runtime's guide says: static for convolutional networks,
    dynamic for transformers.

    Source: onnxruntime.quantization.quantize_static (QDQ), quantize_dynamic and matmul_nbits_quantizer.

    Attributes:
        mode: `weights`, or whether activations' ranges are calibrated (`static`) or found at each call (`dynamic`); or
            `auto`.
        samples: how many samples the calibration takes; None: up to 128, fewer where they are large.
        per_channel: one scale for each output channel rather than one for each matrix (embeddings always have one).
        reduce_range: weights in 7 of the 8 bits. CPUs without VNNI add two products of 8 bits in 16, and what does not
            fit is cut off: on these it makes the outputs several times more accurate. None: where this CPU has none.
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
            Unsupported: the family gives no graphs of the model, there is nothing to quantise, or no data for
                trained weights.
        """
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run that on calibration data where ranges are static, and write `NAME.onnx` in int8."""
        generates = type(family).generate is not Family.generate
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = onnx_block_weights.checked(graphs, Path(plain))
            if self.mode == "weights" or (self.mode == "auto" and generates):
                model.facts["activations"] = "rounded at each call, with a scale for each block of each token"
                return onnx_block_weights.quantise(model, paths, _BLOCKS, True, folder)
            static = {each for each, path in paths.items() if self._is_static(path)}
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
        """Write a graph in int8: static ranges from these inputs, dynamic ones where there are none."""
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
            """Gives what the graph was fed."""

            def __init__(self) -> None:
                self.left = iter(inputs or ())

            def get_next(self) -> dict[str, Any] | None:
                given = next(self.left, None)
                return None if given is None else dict(zip(graph.inputs, map(array, given), strict=True))

        reduce_range = not has_int8_dot_products() if self.reduce_range is None else self.reduce_range
        prepared = plain.with_suffix(".prepared.onnx")
        settings = {"per_channel": self.per_channel, "reduce_range": reduce_range, "weight_type": QuantType.QInt8}
        settings["use_external_data_format"] = is_large(graph)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True, save_as_external_data=is_large(graph))
        model = onnx.load(str(prepared), load_external_data=False)
        if inputs is None:
            del model.graph.value_info[:]  # it turns weights round, and would stumble over their shapes of before
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
