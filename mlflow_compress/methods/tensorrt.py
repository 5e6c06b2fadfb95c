"""The model as TensorRT engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression import coverage, onnx_static_int8
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, record, write_counts
from mlflow_compress.compression.onnx_graphs import TOLERANCE, Session, halve, integers, write
from mlflow_compress.compression.onnx_patterns import NodePatterns
from mlflow_compress.compression.onnx_static_int8 import Calibration, StaticInt8
from mlflow_compress.compression.tensorrt_engine import Engine
from mlflow_compress.errors import MachineLacks, Unsupported
from mlflow_compress.sockets import Family, Graph, Model

_CACHE = "a key-value cache starts empty and grows, but an engine takes only the sizes that it was built for"


@dataclass
class Tensorrt(ExportMethod):
    """TensorRT on an NVIDIA GPU, in float16, float32 or calibrated int8.

    All layers of the family's graphs. An engine is built for the GPU of this machine and for sizes within a range, and
    runs on no other; building takes minutes.

    `int8`: weights with one scale per output channel, and activations in ranges from calibration, symmetric around 0;
    in convolutional networks all operators up to the last layers, in others only the products. The rest is float32.
    TensorRT reads the scales from the graph (explicit quantisation).

    Source: tensorrt.OnnxParser on a strongly typed network, tensorrt.Builder.build_serialized_network;
    onnxruntime.quantization (QDQ) for `int8`.

    Attributes:
        precision: Precision of the weights and the arithmetic.
        most: Largest length of a changing axis (batch, tokens) that the engine takes, unless the example's is larger.
        samples: Calibration samples for `int8`; None: up to 128, fewer if they are large.
        calibration: Range of an activation in `int8`: its smallest and largest value (`minmax`), 99.999 percent of its
            values (`percentile`), or the range that loses the least information (`entropy`).
        exclude: Nodes that stay in float in `int8`: patterns separated by `;`, of operator types, nodes or torch
            modules.
    """

    needs: ClassVar[tuple[str, ...]] = ("tensorrt", "onnx", "onnxruntime", "onnxscript")
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    exporter: ClassVar[str] = "TensorRT"
    loaded_by: ClassVar[str] = (
        'tensorrt.Runtime(tensorrt.Logger()).deserialize_cuda_engine(open("*.engine", "rb").read())'
    )
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(("asr", "causal_lm", "seq2seq"), _CACHE)

    precision: Literal["fp16", "fp32", "int8"] = "fp16"
    most: Annotated[int, Ge(2)] = 512
    samples: Annotated[int | None, Ge(1)] = None
    calibration: Calibration = "minmax"
    exclude: str = ""

    def converts_all(self) -> bool:
        """Return whether the precision is that of all weights."""
        return self.precision != "int8"

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.engine` for each graph, and its number of parameters next to it.

        Raises:
            MachineLacks: There is no GPU to build for.
            Unsupported: TensorRT does not support an operator, the ONNX graph computes something else than the module,
                there are no float32 weights for `fp16`, or there is nothing to quantise or no data for `int8`.
        """
        import torch

        if not torch.cuda.is_available():
            raise MachineLacks("TensorRT builds for the GPU of this machine, and torch finds none")
        paths = {name: folder / f"{name}.onnx" for name in graphs}
        for name, graph in graphs.items():
            write(graph, paths[name])
            require_alike(graph, Session(paths[name], ()), TOLERANCE)
        if self.precision == "fp16" and not sum(halve(path) for path in paths.values()):
            raise Unsupported("there is no float32 weight to convert to float16")
        if self.precision == "int8":
            self._quantise(model, family, graphs, paths)
        for name, graph in graphs.items():
            (folder / f"{name}.engine").write_bytes(self._build(graph, paths[name]))
            for file in folder.glob(f"{name}.onnx*"):
                file.unlink()
            write_counts(graph.module, folder / f"{name}.json")
        return model

    def _quantise(self, model: Model, family: Family, graphs: Mapping[str, Graph], paths: Mapping[str, Path]) -> None:
        """Replace each file by one in int8."""
        import onnx

        require_data_to_score(model, family)
        total = coverage.total(model.module)
        inputs = record(model, family, {name: Session(path, ()) for name, path in paths.items()}, self.samples)
        settings, patterns = StaticInt8(self.calibration, symmetric=True), NodePatterns(self.exclude)
        for name, graph in graphs.items():
            prepared = paths[name].with_suffix(".prepared.onnx")
            structure = onnx_static_int8.prepare(paths[name], prepared, graph)
            excluded = patterns.matches(structure, onnx.load(str(paths[name]), load_external_data=False))
            onnx_static_int8.quantise(prepared, paths[name], graph, inputs[name], settings, excluded)
            for file in prepared.parent.glob(f"{prepared.name}*"):
                file.unlink()
        patterns.require_used()
        if not (quantised := sum(map(integers, paths.values()))):
            raise Unsupported("there is no layer that the method quantises")
        coverage.record(model, min(quantised, total), total)
        model.facts["activations"] = "ranges from calibration"

    def _build(self, graph: Graph, path: Path) -> bytes:
        import tensorrt

        builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
        network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = tensorrt.OnnxParser(network, tensorrt.Logger(tensorrt.Logger.ERROR))
        if not parser.parse_from_file(str(path)):
            raise Unsupported(f"TensorRT can't convert the model: {parser.get_error(0).desc()}")
        settings, profile = builder.create_builder_config(), builder.create_optimization_profile()
        for name, example in graph.inputs.items():
            lengths, axes = tuple(example.shape), graph.dynamic.get(name, {})
            shortest = tuple(1 if axis in axes else length for axis, length in enumerate(lengths))
            longest = tuple(max(self.most, length) if axis in axes else length for axis, length in enumerate(lengths))
            profile.set_shape(name, min=shortest, opt=lengths, max=longest)
        settings.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, settings)
        if engine is None:
            raise RuntimeError("TensorRT built no engine; the reason is on standard error")
        return bytes(engine)

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open an engine on the GPU."""
        return Engine(folder / f"{name}.engine")
