"""Quantises ONNX files to int8 with activation ranges from calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.compression.exporting import array
from mlflow_compress.compression.onnx_graphs import final_arithmetic, grouped_transposed, is_convolutional, is_large
from mlflow_compress.sockets import Graph

Calibration = Literal["minmax", "percentile", "entropy"]

_BINS = {"percentile": 2048, "entropy": 1024}  # of a histogram; with ORT's default of 128, entropy would cut nothing
_PRODUCTS = ("Conv", "MatMul", "Gemm", "Gather")


@dataclass(frozen=True)
class StaticInt8:
    """How a file is quantised.

    Attributes:
        calibration: How the range of an activation is found: its extremes, a percentile of its values, or the range
            with the least Kullback-Leibler divergence between the values and their 8-bit form.
        percentile: Share of the values inside the range, in percent, for `percentile`.
        per_channel: One scale per output channel instead of one per matrix.
        reduce_range: Weights use 7 of the 8 bits.
        symmetric: Ranges of activations are symmetric around 0, in signed integers, as TensorRT requires.
    """

    calibration: Calibration = "minmax"
    percentile: float = 99.999
    per_channel: bool = True
    reduce_range: bool = False
    symmetric: bool = False


def prepare(plain: Path, prepared: Path, graph: Graph) -> Any:
    """Fold constants and fuse normalisation into convolutions in a copy of a file; return its model without weights."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True, save_as_external_data=is_large(graph))
    return onnx.load(str(prepared), load_external_data=False)


def quantise(
    prepared: Path,
    path: Path,
    graph: Graph,
    inputs: Sequence[tuple[Any, ...]],
    settings: StaticInt8,
    excluded: Sequence[str] = (),
) -> None:
    """Write a file in int8 (QDQ).

    In convolutional networks all operators up to the last layers are quantised; in other networks only the products.

    Source: onnxruntime.quantization.quantize_static, whose steps these are.

    Args:
        prepared: File from `prepare`.
        path: File to write.
        graph: Graph of the file.
        inputs: Inputs of the graph to calibrate on.
        settings: How it is quantised.
        excluded: Names of nodes that stay in float.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    structure = onnx.load(str(prepared), load_external_data=False)
    every_type = list({*QLinearOpsRegistry, *QDQRegistry})
    operators = every_type if is_convolutional(structure) else list(_PRODUCTS)
    ranges = _ranges(prepared, operators, graph, inputs, settings)
    activations = QuantType.QInt8 if settings.symmetric else QuantType.QUInt8
    quantizer = QDQQuantizer(
        load_model_with_shape_infer(prepared),
        settings.per_channel,
        settings.reduce_range,
        QuantType.QInt8,
        activations,
        ranges,
        [],
        [
            *final_arithmetic(structure),
            *(grouped_transposed(structure) if settings.per_channel else []),
            *excluded,
        ],
        operators,
        {"ActivationSymmetric": settings.symmetric},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(path), is_large(graph))


def _ranges(
    prepared: Path, operators: Sequence[str], graph: Graph, inputs: Sequence[tuple[Any, ...]], settings: StaticInt8
) -> Any:
    """Return the ranges of the activations, as ONNX Runtime's `TensorsData`."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    method = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[settings.calibration]
    details: dict[str, Any] = {"symmetric": settings.symmetric and settings.calibration != "entropy"}
    if settings.calibration != "minmax":
        details["num_bins"] = _BINS[settings.calibration]
    if settings.calibration == "percentile":
        details["percentile"] = settings.percentile
    with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as folder:
        calibrator = create_calibrator(
            prepared,
            operators,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            use_external_data_format=is_large(graph),
            extra_options=details,
        )
        for tensors in inputs:  # one at a time: a histogram of all would hold all activations in memory
            calibrator.collect_data(_one(dict(zip(graph.inputs, map(array, tensors), strict=True))))
        return calibrator.compute_data()


def _one(sample: Mapping[str, Any]) -> Any:
    """Return a reader of one sample."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Reader of one sample."""

        def __init__(self) -> None:
            self.samples: Iterator[Mapping[str, Any]] = iter([sample])

        def get_next(self) -> Any:
            return next(self.samples, None)

    return Reader()
