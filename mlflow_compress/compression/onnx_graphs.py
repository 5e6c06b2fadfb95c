"""Graphs as ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mlflow_compress.compression import onnx_packed_weights
from mlflow_compress.compression.exporting import Values, array, has_weights
from mlflow_compress.compression.onnx_settings import SessionSettings
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.sockets import Graph

Result = TypeVar("Result")

DEFAULTS = SessionSettings()
TOLERANCE = 0.01  # maximum relative difference of the outputs for another runtime in float32
_MOST_BYTES = 2 * 10**9  # limit of a protocol buffers file; more go into a second file next to it
_LEAST_WEIGHTS = 64
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_INTEGERS = ("INT8", "UINT8", "INT4", "UINT4")
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


def write(graph: Graph, path: Path) -> None:
    """Export a graph and check the file.

    Source: torch.onnx.export with `dynamo=True`, onnx.checker.
    """
    import onnx
    import torch

    with torch.no_grad():
        program = torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(dict(graph.dynamic.get(name, {})) for name in graph.inputs),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=is_large(graph))
    onnx.checker.check_model(str(path))


def halve(path: Path) -> int:
    """Turn the weights and the arithmetic of an ONNX file into float16, in place. Inputs and outputs stay as they were.

    Source: onnxruntime.transformers.float16.convert_float_to_float16.

    Returns:
        The number of weight tensors that are in float16 now.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True, disable_shape_infer=True)
    nodes = {tuple(node.output): node for node in half.graph.node}  # drops repeated casts of one constant
    del half.graph.node[:]
    half.graph.node.extend(nodes.values())
    data_path = path.with_name(f"{path.name}.data")
    was_large = data_path.is_file()
    data_path.unlink(missing_ok=True)
    halved: int = sum(constant.data_type == onnx.TensorProto.FLOAT16 for constant in half.graph.initializer)
    onnx.save(half, str(path), save_as_external_data=was_large, location=data_path.name)
    return halved


def has_operator(path: Path, operator: str) -> bool:
    """Return whether an ONNX file's graph has an operator of this type."""
    import onnx

    return any(node.op_type == operator for node in onnx.load(str(path), load_external_data=False).graph.node)


def integers(path: Path) -> int:
    """Count the weights that an ONNX file stores in 8 bits."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    quantised, scales = _roles(graph)
    kinds = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    weights = [constant for constant in graph.initializer if constant.name in quantised - scales]
    return sum(math.prod(weight.dims) for weight in weights if weight.data_type in kinds)


def change(path: Path, changed: Path, how: Callable[[Any], Result]) -> Result:
    """Change an ONNX file's model and write it to another file, with large weights in a separate file.

    Args:
        path: File to read.
        changed: File to write.
        how: Changes the model in place; its result is returned.
    """
    import onnx

    model = onnx.load(str(path))
    result = how(model)
    is_large = sum(len(constant.raw_data) for constant in model.graph.initializer) > _MOST_BYTES
    onnx.save(model, str(changed), save_as_external_data=is_large, location=f"{changed.name}.data")
    return result


def is_large(graph: Graph) -> bool:
    """Return whether a graph's weights need a separate file."""
    return bool(sum(parameter.nbytes for parameter in graph.module.parameters()) > _MOST_BYTES)


def is_convolutional(model: Any) -> bool:
    """Return whether most weights of an ONNX model belong to convolutions."""
    sizes = _sizes(model.graph)
    counts = {True: 0, False: 0}
    for node in model.graph.node:
        if node.op_type in (*_PRODUCTS, "Gather"):
            counts[node.op_type.startswith("Conv")] += sum(sizes.get(name, 0) for name in node.input)
    return counts[True] > counts[False]


def final_arithmetic(model: Any) -> list[str]:
    """Return the names of the nodes after the last layers, which save no time in int8 but add large errors.

    A detector decodes its boxes there. A layer has at least 64 weights; the layer that averages a detector's
    distributions has 16 and belongs to the decoding.
    """
    sizes, names = _sizes(model.graph), []
    before_layers: set[str] = set()  # names of the values that layers are computed from
    for node in reversed(model.graph.node):
        is_layer = node.op_type in _PRODUCTS and any(sizes.get(name, 0) >= _LEAST_WEIGHTS for name in node.input)
        if is_layer or before_layers.intersection(node.output):
            before_layers.update(node.input)
        else:
            names.append(node.name)
    return names


def grouped_transposed(model: Any) -> list[str]:
    """Return the names of grouped transposed convolutions: ONNX Runtime's channel scales cover only one group."""
    groups = {
        node.name: next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        for node in model.graph.node
        if node.op_type == "ConvTranspose"
    }
    return [name for name, count in groups.items() if count > 1]


class Session:
    """An ONNX file in ONNX Runtime on the CPU. It takes and returns tensors without copies.

    It uses as many threads as torch. Between operators they spin briefly unless the settings forbid it: ONNX Runtime's
    default, as in torch and OpenVINO.

    Args:
        path: File.
        buffers: Constants that are not weights (see `has_weights`).
        settings: How ONNX Runtime opens it.
    """

    runtime = "onnxruntime"

    def __init__(self, path: Path, buffers: Sequence[Values], settings: SessionSettings = DEFAULTS) -> None:
        import torch

        self._session = self._opened(path, settings)
        self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()
        self._inputs = [node.name for node in self.inputs]
        self._outputs = [node.name for node in self.outputs]
        dtypes = {"tensor(double)": torch.float64, "tensor(float16)": torch.float16}
        self.dtype = next((dtypes[node.type] for node in self.inputs if node.type in dtypes), torch.float32)
        self.path, self.buffers = path, buffers

    def _opened(self, path: Path, settings: SessionSettings) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(str(path), settings.options(), providers=[settings.provider_name("cpu")])

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        import torch

        feed = {name: array(tensor) for name, tensor in zip(self._inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(output) for output in self._session.run(None, feed))

    def held_weights(self) -> Iterator[Held | tuple[Any, bool]]:
        """Yield every tensor of the file that holds weights, and whether its elements are parameters.

        In a quantised file these are the integers, including 32-bit biases, and blocks of few bits; scales and zero
        points are not parameters.
        """
        import numpy as np
        import onnx
        import torch

        model = onnx.load(str(self.path))
        quantised, scales = _roles(model.graph)
        packed = onnx_packed_weights.held(model)
        yield from packed.values()
        for tensor in model.graph.initializer:
            if tensor.name in packed:
                continue
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            is_number = kind in (*_INTEGERS, *_FLOATS) or tensor.name in quantised
            if not is_number:
                continue
            data = onnx.numpy_helper.to_array(tensor)
            if tensor.name in scales:
                yield torch.from_numpy(np.array(data)), False
            elif kind not in _FLOATS or has_weights(data, self.buffers):
                yield torch.from_numpy(np.array(data)), True


def _roles(graph: Any) -> tuple[set[str], set[str]]:
    """Return the names of constants that are quantised values, and of those that are scales or zero points."""
    quantised: set[str] = set()
    scales: set[str] = set()
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.update(node.input[1:])
            quantised.update(node.input[:1])
        elif node.op_type in ("MatMulInteger", "ConvInteger"):
            quantised.update(node.input[:2])
            scales.update(node.input[2:])
            scales.update(f"{name.removesuffix('_quantized')}_scale" for name in node.input[:2])  # of a later product
    return quantised, scales


def _sizes(graph: Any) -> dict[str, int]:
    """Return the number of elements of each constant."""
    return {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
