"""Graphs as LiteRT files (`.tflite`), run by LiteRT's interpreter."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_compress.compression.exporting import Values, array, has_weights
from mlflow_compress.compression.fixed_shapes import FixedCall, FixedShapes, fixed
from mlflow_compress.networks.litert_module import LiteRt
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.sockets import Graph

NEEDS = ("ai-edge-litert", "ai-edge-quantizer", "litert-converter", "litert-torch")
# litert-converter pins xdsl 0.28, whose typing-extensions is too old for pydantic 2.12; a conversion needs no xdsl.
INSTALL = (
    'pip install "mlflow-compress[litert-convert]" && pip install --no-deps "litert-torch==0.10.*" '
    '"litert-converter==0.5.*" "ai-edge-quantizer==0.10.*"'
)
TOLERANCE = 0.01  # maximum relative difference of the outputs for another runtime in float32
SIGNATURE = "serving_default"  # litert-torch's name of the only signature

_LEAST_WEIGHTS = 64  # of a layer; a layer with fewer belongs to the decoding of a detector
_LARGEST_BIAS = 2**30  # half of int32: the sum of the products is added to it
_LEAST_SPAN = 1e-9  # of a range: the quantizer widens smaller ones
_WITH_INT8 = {  # layers that the quantizer knows: positions of activation, weights and bias in their inputs
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),  # the first input is the shape of the output
}
_LAYERS = (*_WITH_INT8, "CONV_3D")


class _Operator(NamedTuple):
    """An operator of a file.

    Attributes:
        kind: Its name in LiteRT: `CONV_2D`.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        weights: Number of elements of its largest constant.
        is_constant: Whether all its inputs are constants.
        scope: Its name in rules of ai-edge-quantizer.
    """

    kind: str
    inputs: list[str]
    outputs: list[str]
    weights: int
    is_constant: bool

    @property
    def scope(self) -> str:
        return "".join(f"{name};" for name in self.outputs)


class _BiasedLayer(NamedTuple):
    """A layer with a bias: its name in LiteRT, and the indices of its tensors."""

    kind: str
    activation: int
    weights: int
    bias: int


def write(graph: Graph, path: Path) -> None:
    """Convert a graph into a file in float32, and write its shapes to a file beside it.

    Source: litert_torch.convert.
    """
    import litert_torch

    plain = fixed(graph)
    litert_torch.convert(plain.module, tuple(plain.inputs.values())).export(str(path))
    FixedShapes.of(graph).write(path.with_suffix(".json"))


class LiteRtCall(FixedCall):
    """A LiteRT file of fixed shapes, on the CPU with XNNPACK.

    Args:
        path: File; its shapes are beside it.
        buffers: Constants that are not weights (see `has_weights`).
    """

    runtime = LiteRt.runtime

    def __init__(self, path: Path, buffers: Sequence[Values]) -> None:
        self._file = LiteRt(path, lambda constant, step: has_weights(constant, buffers, step))
        super().__init__(FixedShapes.read(path.with_suffix(".json")), self._file)

    def arrays(self, *inputs: Any) -> Iterator[list[Any]]:
        """Yield the inputs of each sample as arrays, in the shapes and types of the file."""
        for sample in self.samples(*inputs):
            yield [
                array(tensor).astype(port.dtype, copy=False)
                for tensor, port in zip(sample, self._file.inputs, strict=True)
            ]

    def held_weights(self) -> Iterator[Held]:
        """Yield every constant of the file that holds weights (see `stored_weights.held`)."""
        return self._file.held_weights()


def final_scopes(path: Path) -> list[str]:
    """Return the scopes of the operators after the last layers, which add large errors in int8.

    A detector decodes its boxes there (see `onnx_graphs.final_arithmetic`).
    """
    before_layers: set[str] = set()
    scopes: list[str] = []
    for operator in reversed(list(_operators(path))):
        is_layer = operator.kind in _LAYERS and operator.weights >= _LEAST_WEIGHTS
        if is_layer or before_layers.intersection(operator.outputs):
            before_layers.update(operator.inputs)
        else:
            scopes.append(operator.scope)
    return scopes


def constant_scopes(path: Path) -> list[str]:
    """Return the scopes of the operators whose inputs are all constants.

    In int8, LiteRT's product of two constants is not a number. DETR multiplies its queries, which are constants.
    """
    return [operator.scope for operator in _operators(path) if operator.is_constant]


def flatten_biases(path: Path) -> None:
    """Make the biases of layers one-dimensional in a file, in place: the quantizer expects one scale per element.

    The converter folds `(x @ w + b) * c` into a layer with a bias [1, n].
    """
    from ai_edge_litert.tools import flatbuffer_utils

    content, operators = _content(path)
    (subgraph, *_) = content.subgraphs
    uses = Counter(index for _, operator in operators for index in operator.inputs)
    is_changed = False
    for layer in _biased_layers(operators):
        bias = subgraph.tensors[layer.bias]
        count = _constants(content, bias)
        if len(bias.shape) > 1 and count == bias.shape[-1] and uses[layer.bias] == 1:
            bias.shape, bias.shapeSignature = [count], None
            is_changed = True
    if is_changed:
        flatbuffer_utils.write_model(content, str(path))


def fit_biases(path: Path, ranges: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the biases of layers fit into int32, in place, before layers with calibrated ranges are quantised.

    The step of a bias is the input's step times that of the channel's weights. It is too small for the bias of a dead
    channel, whose weights are almost 0: the quantizer would cut the bias, and the channel would give 0. So one weight
    of such a channel is raised: it changes the output by at most 1e-4 of the bias.

    Args:
        path: File in float32, after `flatten_biases`.
        ranges: `min` and `max` of each activation, by name.
    """
    import numpy as np
    from ai_edge_litert.tools import flatbuffer_utils

    content, operators = _content(path)
    (subgraph, *_) = content.subgraphs
    is_changed = False
    for layer in _biased_layers(operators):
        source, weight, bias = (subgraph.tensors[index] for index in (layer.activation, layer.weights, layer.bias))
        limits = ranges.get(source.name.decode())
        if limits is None or not (_constants(content, weight) and _constants(content, bias)):
            continue
        span = max(0.0, float(np.max(limits["max"]))) - min(0.0, float(np.min(limits["min"])))
        weights = np.frombuffer(content.buffers[weight.buffer].data, np.float32).reshape(weight.shape).copy()
        channels = np.moveaxis(weights, -1 if layer.kind == "DEPTHWISE_CONV_2D" else 0, 0)
        biases = np.frombuffer(content.buffers[bias.buffer].data, np.float32)
        # |bias| = step of the input (span / 255) x step of the weights (largest / 127) x the largest integer
        least = 255 * 127 * np.abs(biases) / (max(span, _LEAST_SPAN) * _LARGEST_BIAS)
        for channel in np.flatnonzero(np.abs(channels).reshape(len(biases), -1).max(axis=1) < least):
            channels[channel].flat[0] = least[channel]
            is_changed = True
        content.buffers[weight.buffer].data = np.frombuffer(weights.tobytes(), np.uint8)
    if is_changed:
        flatbuffer_utils.write_model(content, str(path))


def _operators(path: Path) -> Iterator[_Operator]:
    content, operators = _content(path)
    (subgraph, *_) = content.subgraphs
    for kind, operator in operators:
        inputs = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
        constants = [_constants(content, tensor) for tensor in inputs]
        yield _Operator(
            kind,
            [tensor.name.decode() for tensor in inputs],
            [subgraph.tensors[index].name.decode() for index in operator.outputs],
            max(constants, default=0),
            all(constants),
        )


def _content(path: Path) -> tuple[Any, list[tuple[str, Any]]]:
    """Return a file's content, and the operators of its only graph with their names in LiteRT."""
    schema = _schema()
    content = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    codes = [kinds[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in content.operatorCodes]
    return content, [(codes[operator.opcodeIndex], operator) for operator in content.subgraphs[0].operators]


def _biased_layers(operators: Iterable[tuple[str, Any]]) -> Iterator[_BiasedLayer]:
    for kind, operator in operators:
        positions = _WITH_INT8.get(kind, ())
        if positions and len(operator.inputs) > max(positions):
            layer = _BiasedLayer(kind, *(int(operator.inputs[position]) for position in positions))
            if layer.bias >= 0:
                yield layer


def _constants(content: Any, tensor: Any) -> int:
    """Return the number of elements of a constant tensor; 0 for others."""
    data = content.buffers[tensor.buffer].data
    return math.prod(tensor.shape) if data is not None and len(data) else 0


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated
