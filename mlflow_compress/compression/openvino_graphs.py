"""Graphs as OpenVINO's intermediate representation, run by its CPU runtime."""

from __future__ import annotations

import functools
import math
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Values, array, has_weights
from mlflow_compress.compression.usage_reports import decline_openvino
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.sockets import Graph

TOLERANCE = 0.02  # maximum relative difference of the outputs for another runtime in float32
_MOST_NAMED = 3  # operators in a message
_LEAST_WEIGHTS = 64
_SMOOTHING = "nncf_smooth_quant"  # in the names of NNCF's nodes that scale activations
_PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_INTEGERS = ("i8", "u8", "i4", "u4")
_OF_4_BITS = ("i4", "u4")
_FLOATS = ("f32", "f16", "f64")

decline_openvino()  # here, because its import sends one already


def write(graph: Graph, path: Path, precision: str | None = None) -> None:
    """Convert a graph by tracing it; write PATH (.xml) and its weights next to it (.bin).

    Source: openvino.convert_model, openvino.save_model.

    Args:
        graph: Graph in float32.
        path: File to write.
        precision: Original precision of weights that were cast to float32: `bfloat16` or `float16`. The weights are
            written in it without loss: a constant that it can't represent exactly stays in float32.

    Raises:
        Unsupported: OpenVINO does not support operators of the graph.
    """
    import openvino
    import torch

    dynamic = {name: graph.dynamic.get(name, {}) for name in graph.inputs}
    shapes = [
        openvino.PartialShape([-1 if axis in dynamic[name] else length for axis, length in enumerate(example.shape)])
        for name, example in graph.inputs.items()
    ]
    try:
        with torch.no_grad():
            converted = openvino.convert_model(graph.module, example_input=tuple(graph.inputs.values()), input=shapes)
    except Exception as error:
        if operators := _unsupported_operators(str(error)):
            raise Unsupported(f"OpenVINO can't convert the model: it does not support {operators}") from error
        raise
    names, ports = (*graph.inputs, *graph.outputs), (*converted.inputs, *converted.outputs)
    for name, port in zip(names, ports, strict=True):
        port.get_tensor().set_names({name})
    if precision is not None:
        _narrow(converted, precision)
    openvino.save_model(converted, str(path), compress_to_fp16=False)


def _narrow(model: Any, precision: str) -> None:
    """Store an OpenVINO model's constants in 16 bits where this is exact; they are converted at run time."""
    import openvino
    import torch
    from openvino import opset13

    kind = {"bfloat16": openvino.Type.bf16, "float16": openvino.Type.f16}[precision]
    for constant in model.get_ops():
        if constant.get_type_name() != "Constant" or constant.get_element_type() != openvino.Type.f32:
            continue
        values = torch.tensor(constant.data)
        if values.numel() > 1 and torch.equal(values.to(getattr(torch, precision)).float(), values):
            readers = constant.output(0).get_target_inputs()
            narrow = opset13.constant(constant.data, kind)
            narrow.set_friendly_name(constant.get_friendly_name())
            converted = opset13.convert(narrow, "f32")
            for reader in readers:
                reader.replace_source_output(converted.output(0))


def _unsupported_operators(message: str) -> str:
    """Return the operators that a conversion error names as unsupported; empty for other errors."""
    rules = re.search(r"No conversion rule found for operations: (.+)", message)
    if rules:
        names = re.findall(r"\w+::\w+", rules[1])
    else:
        names = re.findall(r"^-- (\w+::\w+) with a message", message, re.MULTILINE)
    return ", ".join(list(dict.fromkeys(names))[:_MOST_NAMED])


def is_convolutional(model: Any) -> bool:
    """Return whether most weights of an OpenVINO model belong to convolutions."""
    counts = {True: 0, False: 0}
    for node in model.get_ops():
        if node.get_type_name() in (*_PRODUCTS, "Gather"):
            counts["Convolution" in node.get_type_name()] += _weights(node)
    return counts[True] > counts[False]


def final_arithmetic(model: Any) -> list[str]:
    """Return the names of the nodes after the last layers, which save no time in int8 but add large errors.

    A detector decodes its boxes there. A layer has at least 64 weights; the layer that averages a detector's
    distributions has 16 and belongs to the decoding.
    """
    before_layers: set[str] = set()
    names = []
    for node in reversed(model.get_ordered_ops()):
        readers = [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]
        name = node.get_friendly_name()
        if any(_is_layer(reader) or reader.get_friendly_name() in before_layers for reader in readers):
            before_layers.add(name)
        elif not _is_layer(node) and node.get_type_name() not in ("Constant", "Parameter", "Result"):
            names.append(name)
    return names


class Compiled:
    """An intermediate representation, compiled for the CPU. It takes and returns tensors without copies.

    It uses as many threads as torch, and one request at a time. The memory of its outputs is reused once nothing refers
    to them.

    Args:
        path: File (.xml).
        buffers: Constants that are not weights (see `has_weights`).
        precision: `f32`, or OpenVINO's choice for the CPU (`default`: bfloat16 if it has instructions for it).
    """

    runtime = "openvino"

    def __init__(self, path: Path, buffers: Sequence[Values], precision: str) -> None:
        import openvino
        import torch

        self._compiled = openvino.Core().compile_model(str(path), "CPU", settings(precision))
        self.inputs, self.outputs = self._compiled.inputs, self._compiled.outputs
        types = {port.get_element_type().get_type_name() for port in self.inputs}
        self.dtype = torch.float64 if "f64" in types else torch.float32
        self._returned_inputs: list[int] | None = None  # outputs that share an input's memory; set by the first call
        self._requests: list[tuple[Any, list[weakref.ref[Any]]]] = []
        self.path, self.buffers = path, buffers

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph."""
        import torch

        request, references = self._free()
        arrays = [array(tensor) for tensor in inputs]
        request.infer(arrays, share_inputs=True, share_outputs=True)
        request._inputs_data = None  # it would keep the inputs alive, which may be another request's outputs
        outputs = [tensor.data for tensor in request.output_tensors]
        if self._returned_inputs is None:
            self._returned_inputs = [index for index, output in enumerate(outputs) if _is_of(output, arrays)]
        for index in self._returned_inputs:
            outputs[index] = outputs[index].copy()  # the input's memory may be freed first
        references[:] = [weakref.ref(output) for output in outputs]
        return tuple(torch.from_numpy(output) for output in outputs)

    def _free(self) -> tuple[Any, list[weakref.ref[Any]]]:
        """Return a request without referenced outputs: a call overwrites its request's outputs, perhaps its inputs."""
        for request, references in self._requests:
            if all(output() is None for output in references):
                return request, references
        self._requests.append((self._compiled.create_infer_request(), []))
        return self._requests[-1]

    def held_weights(self) -> Iterator[Held]:
        """Yield every constant of the file that holds weights (see `held_constants`)."""
        yield from held_constants(self.path, self.buffers)


def in_float(graphs: Mapping[str, Graph], folder: Path) -> dict[Path, Compiled]:
    """Write each graph in float32 as `NAME.xml`, and return the compiled graphs by file.

    Raises:
        Unsupported: OpenVINO can't convert a graph, or it computes something else than the module.
    """
    calls = {}
    for name, graph in graphs.items():
        write(graph, folder / f"{name}.xml")
        calls[folder / f"{name}.xml"] = call = Compiled(folder / f"{name}.xml", (), "f32")
        require_alike(graph, call, TOLERANCE)
    return calls


def settings(precision: str) -> dict[str, Any]:
    """Return the compile settings for the CPU: latency of one request, with as many threads as torch.

    Args:
        precision: `f32`, or OpenVINO's choice for the CPU (`default`: bfloat16 if it has instructions for it).
    """
    import torch

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return options if precision == "default" else {**options, "INFERENCE_PRECISION_HINT": precision}


def held_constants(path: Path, buffers: Sequence[Values]) -> Iterator[Held]:
    """Yield every constant of a file that holds weights.

    In a quantised file these are the integers; scales, zero points and limits of activations are not parameters. Two
    4-bit integers share a byte.

    Args:
        path: File (.xml).
        buffers: Constants that are not weights (see `has_weights`).
    """
    import numpy as np
    import openvino
    import torch

    for constant in openvino.Core().read_model(str(path)).get_ops():
        if constant.get_type_name() != "Constant":
            continue
        kind = constant.get_element_type().get_type_name()
        if kind not in (*_INTEGERS, *_FLOATS, "bf16"):
            continue
        scales = is_scale(constant)
        count = math.prod(constant.shape)
        if kind in _OF_4_BITS:
            packed = torch.from_numpy(np.array(constant.data).reshape(-1).view(np.uint8))
            yield Held(packed, 0 if scales else count, functools.partial(_unpacked, packed, count))
        elif kind == "bf16":
            values = constant.get_data(dtype=np.float32)
            if scales or has_weights(values, buffers):
                yield Held(torch.from_numpy(values).bfloat16(), 0 if scales else count)
        elif scales or kind in _INTEGERS or has_weights(constant.data, buffers):
            yield Held(torch.from_numpy(np.array(constant.data)), 0 if scales else count)


def _unpacked(packed: Any, count: int) -> Any:
    """Unpack 4-bit integers, two per byte: [count]."""
    import torch

    return torch.stack([packed & 15, packed >> 4], dim=-1).reshape(-1)[:count]


def _is_of(output: Any, inputs: Sequence[Any]) -> bool:
    """Return whether an output shares the memory of an input."""
    import numpy as np

    return any(np.may_share_memory(output, source) for source in inputs)


def is_scale(constant: Any) -> bool:
    """Return whether a constant, possibly converted, scales or shifts integers, or limits activations."""
    for port in constant.output(0).get_target_inputs():
        reader = port.get_node()
        kind = reader.get_type_name()
        if kind == "FakeQuantize" or _SMOOTHING in reader.get_friendly_name():
            return True
        if kind == "Convert" and is_scale(reader):
            return True
        if kind in ("Multiply", "Subtract") and port.get_index() == 1 and _is_integer(reader.input_value(0).get_node()):
            return True
    return False


def _is_integer(node: Any) -> bool:
    """Return whether a node is constant integers, possibly converted to floating point and shifted."""
    if node.get_type_name() == "Constant":
        return node.get_element_type().get_type_name() in _INTEGERS
    return node.get_type_name() in ("Convert", "Subtract") and _is_integer(node.input_value(0).get_node())


def _is_layer(node: Any) -> bool:
    return node.get_type_name() in _PRODUCTS and _weights(node) >= _LEAST_WEIGHTS


def _weights(node: Any) -> int:
    """Count the elements of the constants among a node's inputs."""
    sources = (port.get_node() for port in node.input_values())
    return sum(math.prod(source.shape) for source in sources if source.get_type_name() == "Constant")
