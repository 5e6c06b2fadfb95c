"""The model in ONNX Runtime, in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Gt, Lt

from mlflow_compress.compression import onnx_block_weights, onnx_static_int8
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.exporting import record, require_integers
from mlflow_compress.compression.onnx_blocks import Blocks
from mlflow_compress.compression.onnx_graphs import Session, is_convolutional, is_large
from mlflow_compress.compression.onnx_method import OnnxMethod
from mlflow_compress.compression.onnx_patterns import NodePatterns
from mlflow_compress.compression.onnx_static_int8 import Calibration, StaticInt8
from mlflow_compress.errors import Unsupported
from mlflow_compress.meters.environment import has_int8_dot_products
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
_AT_EACH_CALL = "ranges found at each call"
_BY = {"minmax": "", "percentile": " (percentile)", "entropy": " (entropy)"}
_BLOCKS = Blocks(bits=8, length=32, symmetric=True, accuracy_level=4)


@dataclass
class OnnxInt8(OnnxMethod):
    """ONNX Runtime in int8: weights and activations, calibrated on a few samples.

    Weights of convolutions, matrix products and embeddings are stored in int8.

    `weights`: only weights, in symmetric blocks of 32 that share a scale; an embedding tied to the head shares its
    weights. ONNX Runtime's `MatMulNBits` rounds activations to 8 bits too, but with one scale per block and token,
    which loses almost nothing. Convolutions stay in float32. `static`: activation ranges come from calibration. In
    convolutional networks all operators up to the last layers are quantised, so that activations stay in int8 between
    them; in other networks only the products, because ranges seen without padding do not cover the values that
    attention masks add. `dynamic`: ranges are computed at each call, for matrix products only, without calibration.
    `auto`: only weights for models that generate, because their activations have outliers that do not fit one scale;
    otherwise as ONNX Runtime's guide recommends: static for convolutional networks, dynamic for transformers. `static`
    too if `calibration` is not `minmax`, or if `provider` is `tensorrt`.

    On a GPU only `provider=tensorrt` computes in int8: it takes static ranges, symmetric around 0.

    Source: onnxruntime.quantization.quantize_static (QDQ), quantize_dynamic and matmul_nbits_quantizer; entropy:
    Migacz, 8-bit Inference with TensorRT, GTC 2017.

    Attributes:
        mode: `weights`, or activation ranges that are calibrated (`static`) or computed at each call (`dynamic`), or
            `auto`.
        samples: Calibration samples; None: up to 128, fewer if they are large.
        per_channel: One scale per output channel instead of one per matrix (embeddings always have one).
        reduce_range: Weights use 7 of the 8 bits. CPUs without VNNI add two 8-bit products in 16 bits, and larger sums
            saturate: on these CPUs the outputs become several times more accurate. None: if this CPU has no VNNI.
        calibration: Static range of an activation: its smallest and largest value (`minmax`), a `percentile` of its
            values, or the range that loses the least information (`entropy`).
        percentile: Share of the values inside the range, in percent, for `calibration=percentile`.
        exclude: Nodes that stay in float (static and dynamic): patterns separated by `;`, of operator types, nodes or
            torch modules: `Softmax;stages.0*`.
    """

    converts: ClassVar[bool] = False
    revision: ClassVar[int] = 4

    mode: Literal["auto", "weights", "static", "dynamic"] = "auto"
    samples: Annotated[int | None, Ge(1)] = None
    per_channel: bool = True
    reduce_range: bool | None = None
    calibration: Calibration = "minmax"
    percentile: Annotated[float, Gt(50), Lt(100)] = 99.999
    exclude: str = ""

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: The family gives no graphs of the model, there is nothing to quantise, there is no data for
                trained weights, or two options contradict each other.
        """
        requested = {"calibration": self.calibration != "minmax", "provider": self.provider == "tensorrt"}
        if self.mode in ("weights", "dynamic") and (
            option := next((key for key, is_set in requested.items() if is_set), "")
        ):
            raise Unsupported(f"{option}={getattr(self, option)} requires static ranges: remove mode={self.mode}")
        if self.percentile != type(self).percentile and self.calibration != "percentile":
            raise Unsupported(f"percentile={self.percentile:g} needs calibration=percentile")
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run the export on calibration data if ranges are static, and write `NAME.onnx` in int8."""
        generates = type(family).generate is not Family.generate
        patterns = NodePatterns(self.exclude)
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = onnx_block_weights.checked(graphs, Path(plain))
            if self._has_only_weights(generates):
                if patterns:
                    raise Unsupported("exclude applies to mode=static and mode=dynamic, not to mode=weights")
                model.facts["activations"] = "rounded at each call, with a scale for each block of each token"
                return onnx_block_weights.quantise(model, paths, _BLOCKS, True, folder)
            prepared = {name: _prepared(graph, paths[name], patterns) for name, graph in graphs.items()}
            patterns.require_used()  # before calibration, which may take minutes
            static = {name for name, path in paths.items() if self._is_static(path)}
            inputs: dict[str, list[tuple[Any, ...]]] = {}
            if static:
                require_data_to_score(model, family)
                inputs = record(model, family, {name: Session(path, ()) for name, path in paths.items()}, self.samples)
            for name, graph in graphs.items():
                self._quantise(graph, prepared[name], folder / f"{name}.onnx", inputs[name] if name in static else None)
        model.facts["activations"] = f"ranges from calibration{_BY[self.calibration]}" if static else _AT_EACH_CALL
        if generates:
            model.cautions.append(ONE_SCALE_FOR_ALL.of(mode="static" if static else "dynamic"))
        return model

    def _has_only_weights(self, generates: bool) -> bool:
        return self.mode == "weights" or (self.mode == "auto" and generates and not self._requires_static())

    def _requires_static(self) -> bool:
        return self.calibration != "minmax" or self.provider == "tensorrt"

    def _is_static(self, path: Path) -> bool:
        import onnx

        if self.mode != "auto" or self._requires_static():
            return self.mode != "dynamic"
        return is_convolutional(onnx.load(str(path), load_external_data=False))

    def _quantise(
        self, graph: Graph, prepared: _Prepared, path: Path, inputs: Sequence[tuple[Any, ...]] | None
    ) -> None:
        """Write a graph in int8, with static ranges from these inputs, or with dynamic ranges if they are None."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        reduce_range = not has_int8_dot_products() if self.reduce_range is None else self.reduce_range
        if inputs is not None:
            settings = StaticInt8(
                self.calibration,
                self.percentile,
                self.per_channel,
                reduce_range and self.provider != "tensorrt",
                self.provider == "tensorrt",
            )
            onnx_static_int8.quantise(prepared.path, path, graph, inputs, settings, prepared.excluded)
            return
        model = onnx.load(str(prepared.path), load_external_data=False)
        del model.graph.value_info[:]  # it transposes weights and would fail on the recorded shapes
        onnx.save(model, str(prepared.path))
        quantize_dynamic(
            str(prepared.path),
            str(path),
            op_types_to_quantize=["MatMul", "Gather"],
            nodes_to_exclude=[*prepared.excluded, *(f"{name}_MatMul" for name in prepared.excluded)],  # of a Gemm
            per_channel=self.per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large(graph),
        )


class _Prepared(NamedTuple):
    """A file that is ready to be quantised.

    Attributes:
        path: The file.
        excluded: Names of its nodes that stay in float.
    """

    path: Path
    excluded: list[str]


def _prepared(graph: Graph, plain: Path, patterns: NodePatterns) -> _Prepared:
    """Prepare an exported file (see `onnx_static_int8.prepare`), and find the nodes that stay in float."""
    import onnx

    path = plain.with_suffix(".prepared.onnx")
    model = onnx_static_int8.prepare(plain, path, graph)
    return _Prepared(path, patterns.matches(model, onnx.load(str(plain), load_external_data=False)))
