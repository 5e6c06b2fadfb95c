"""Graphs as LiteRT files (`.tflite`), run by LiteRT's interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_compress.compression.exporting import Values, array, has_weights
from mlflow_compress.compression.fixed_shapes import FixedCall, FixedShapes, fixed
from mlflow_compress.sockets import Graph

TOLERANCE = 0.01  # maximum relative difference of the outputs for another runtime in float32
SIGNATURE = "serving_default"  # litert-torch's name of the only signature

_LEAST_WEIGHTS = 64  # of a layer; a layer with fewer belongs to the decoding of a detector
_LAYERS = ("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_FLOATS = ("float32", "float16")
_INTEGERS = ("int8", "int16", "uint8")


class _Operator(NamedTuple):
    """An operator of a file.

    Attributes:
        kind: Its name in LiteRT: `CONV_2D`.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        weights: Number of elements of its largest constant.
    """

    kind: str
    inputs: list[str]
    outputs: list[str]
    weights: int


def write(graph: Graph, path: Path) -> None:
    """Convert a graph into a file in float32, and write its shapes to a file beside it.

    Source: litert_torch.convert.
    """
    import litert_torch

    plain = fixed(graph)
    litert_torch.convert(plain.module, tuple(plain.inputs.values())).export(str(path))
    FixedShapes.of(graph).write(path.with_suffix(".json"))


class LiteRtCall(FixedCall):
    """A LiteRT file in the interpreter, on the CPU with XNNPACK. It takes and gives tensors, and copies both.

    It uses as many threads as torch.

    Args:
        path: File; its shapes are beside it.
        buffers: Constants that are not weights (see `has_weights`).
    """

    runtime = "ai-edge-litert"

    def __init__(self, path: Path, buffers: Sequence[Values]) -> None:
        import torch
        from ai_edge_litert.interpreter import Interpreter

        super().__init__(FixedShapes.read(path.with_suffix(".json")), self._invoke)
        self.path, self.buffers = path, buffers
        self._interpreter = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
        self._interpreter.allocate_tensors()
        self._signature = self._interpreter.get_signature_runner(SIGNATURE)
        self._inputs = sorted(self._signature.get_input_details(), key=_position)
        self._outputs = sorted(self._signature.get_output_details(), key=_position)

    def _invoke(self, *inputs: Any) -> list[Any]:
        import torch

        feed = {name: array(tensor) for name, tensor in zip(self._inputs, inputs, strict=True)}
        outputs = self._signature(**feed)
        return [torch.from_numpy(outputs[name]) for name in self._outputs]

    def held_weights(self) -> Iterator[tuple[Any, bool]]:
        """Yield every constant of the file that holds weights, and whether its elements are parameters."""
        import numpy as np
        import torch

        schema = _schema()
        content = schema.ModelT.InitFromPackedBuf(self.path.read_bytes(), 0)
        kinds = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
        seen = set()
        for tensor in (tensor for subgraph in content.subgraphs for tensor in subgraph.tensors):
            data, kind = content.buffers[tensor.buffer].data, kinds[tensor.type]
            if data is None or not len(data) or tensor.buffer in seen or kind not in (*_FLOATS, *_INTEGERS, "int32"):
                continue
            is_quantised = tensor.quantization is not None and tensor.quantization.scale is not None
            constant = np.frombuffer(bytes(data), dtype=kind)
            if is_quantised or (kind in _FLOATS and has_weights(constant, self.buffers)):
                seen.add(tensor.buffer)
                yield torch.from_numpy(constant.copy()), True


def final_outputs(path: Path) -> list[str]:
    """Return the names of the outputs of the operators after the last layers, which add large errors in int8.

    A detector decodes its boxes there (see `onnx_graphs.final_arithmetic`).
    """
    before_layers: set[str] = set()
    names: list[str] = []
    for operator in reversed(list(_operators(path))):
        is_layer = operator.kind in _LAYERS and operator.weights >= _LEAST_WEIGHTS
        if is_layer or before_layers.intersection(operator.outputs):
            before_layers.update(operator.inputs)
        else:
            names += operator.outputs
    return names


def _operators(path: Path) -> Iterator[_Operator]:
    schema = _schema()
    content = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    (subgraph, *_) = content.subgraphs
    for operator in subgraph.operators:
        inputs = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
        code = content.operatorCodes[operator.opcodeIndex]
        yield _Operator(
            kinds[max(code.builtinCode, code.deprecatedBuiltinCode)],
            [tensor.name.decode() for tensor in inputs],
            [subgraph.tensors[index].name.decode() for index in operator.outputs],
            max((_constants(content, tensor) for tensor in inputs), default=0),
        )


def _constants(content: Any, tensor: Any) -> int:
    """Return the number of elements of a constant tensor; 0 for others."""
    import math

    data = content.buffers[tensor.buffer].data
    return math.prod(tensor.shape) if data is not None and len(data) else 0


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def _position(name: str) -> int:
    """Return the position of an input or output: `args_10` comes after `args_9`."""
    return int(name.rpartition("_")[2])
