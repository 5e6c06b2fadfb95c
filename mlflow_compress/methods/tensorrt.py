"""The model as TensorRT engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, write_counts
from mlflow_compress.compression.onnx_graphs import TOLERANCE, Session, halve, write
from mlflow_compress.compression.tensorrt_engine import Engine
from mlflow_compress.errors import MachineLacks, Unsupported
from mlflow_compress.sockets import Family, Graph, Model

_CACHE = "a key-value cache starts empty and grows, but an engine takes only the sizes that it was built for"


@dataclass
class Tensorrt(ExportMethod):
    """TensorRT on an NVIDIA GPU, in float16 or float32.

    All layers of the family's graphs. An engine is built for the GPU of this machine and for sizes within a range, and
    runs on no other; building takes minutes.

    Source: tensorrt.OnnxParser on a strongly typed network, tensorrt.Builder.build_serialized_network.

    Attributes:
        precision: Precision of the weights and the arithmetic.
        most: Largest length of a changing axis (batch, tokens) that the engine takes, unless the example's is larger.
    """

    needs: ClassVar[tuple[str, ...]] = ("tensorrt", "onnx", "onnxruntime", "onnxscript")
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    exporter: ClassVar[str] = "TensorRT"
    loaded_by: ClassVar[str] = (
        'tensorrt.Runtime(tensorrt.Logger()).deserialize_cuda_engine(open("*.engine", "rb").read())'
    )
    excludes: ClassVar[Mapping[str, str]] = {"asr": _CACHE, "causal_lm": _CACHE}

    precision: Literal["fp16", "fp32"] = "fp16"
    most: Annotated[int, Ge(2)] = 512

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write `NAME.engine` for each graph, and its number of parameters next to it.

        Raises:
            MachineLacks: There is no GPU to build for.
            Unsupported: TensorRT does not support an operator, the ONNX graph computes something else than the module,
                or there are no float32 weights for `fp16`.
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
        for name, graph in graphs.items():
            (folder / f"{name}.engine").write_bytes(self._build(graph, paths[name]))
            for file in folder.glob(f"{name}.onnx*"):
                file.unlink()
            write_counts(graph.module, folder / f"{name}.json")
        return model

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
