"""Small files of runtimes, which tests write themselves: a linear classifier of four numbers into three classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WEIGHT = np.array([[1, 0, 0, 1], [0, 1, 0, -1], [0, 0, 1, 0]], dtype=np.float32)
BIAS = np.array([0.5, 0, -0.5], dtype=np.float32)


def expected(inputs: Any) -> Any:
    """Return the scores [samples, 3] of inputs [samples, 4]."""
    return np.asarray(inputs, dtype=np.float32) @ WEIGHT.T + BIAS


def onnx_file(path: Path, batch: int | str = "batch", ir_version: int = 10) -> Path:
    """Write the classifier as ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("Gemm", ["x", "weight", "bias"], ["scores"], transB=1)
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(BIAS, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    onnx.save(model, str(path))
    return path


def torch_module() -> Any:
    """Return the classifier as a torch module."""
    import torch

    module = torch.nn.Linear(4, 3)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(WEIGHT))
        module.bias.copy_(torch.from_numpy(BIAS))
    return module.eval().requires_grad_(False)


def torchscript_file(path: Path) -> Path:
    """Write the classifier as TorchScript."""
    import torch

    torch.jit.save(torch.jit.trace(torch_module(), torch.zeros(1, 4)), str(path))
    return path


def program_file(path: Path) -> Path:
    """Write the classifier as a graph of torch.export, for any number of samples."""
    import torch

    program = torch.export.export(
        torch_module(), (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
    )
    torch.export.save(program, path)
    return path


def openvino_file(path: Path) -> Path:
    """Write the classifier as OpenVINO's .xml and .bin."""
    import openvino
    import torch

    converted = openvino.convert_model(torch_module(), example_input=torch.zeros(1, 4), input=[(-1, 4)])
    openvino.save_model(converted, str(path), compress_to_fp16=False)
    return path


def litert_file(path: Path, *, is_quantised: bool = False, operator: str = "FULLY_CONNECTED") -> Path:
    """Write the classifier as LiteRT, by its flatbuffer schema.

    Args:
        path: the file.
        is_quantised: whether inputs, weights and outputs are int8; the scales are powers of two.
        operator: name of its only operator; `Custom:NAME` for one that LiteRT does not know.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.TensorType.INT8 if is_quantised else schema.TensorType.FLOAT32
    buffers = [b"", (_whole(WEIGHT, 0.0625, np.int8) if is_quantised else WEIGHT).tobytes()]
    buffers.append((_whole(BIAS, 0.0625 * 0.0625, np.int32) if is_quantised else BIAS).tobytes())
    scales = {"x": 0.0625, "weight": 0.0625, "bias": 0.0625 * 0.0625, "scores": 0.125}
    shapes = {"x": [1, 4], "weight": [3, 4], "bias": [3], "scores": [1, 3]}
    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    if operator.startswith("Custom:"):
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = operator.partition(":")[2]
    else:
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    code.version = 4 if is_quantised else 1
    model.operatorCodes = [code]
    graph = schema.SubGraphT()
    graph.tensors = []
    for name, shape in shapes.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, shape
        tensor.shapeSignature = [-1, *shape[1:]] if name in ("x", "scores") else shape
        tensor.type = schema.TensorType.INT32 if is_quantised and name == "bias" else kind
        tensor.buffer = {"weight": 1, "bias": 2}.get(name, 0)
        if is_quantised:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scales[name]], [0]
        graph.tensors.append(tensor)
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0, 1, 2], [3]
    if operator == "FULLY_CONNECTED":
        node.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        node.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators, graph.inputs, graph.outputs = [node], [0], [3]
    model.subgraphs = [graph]
    model.buffers = []
    for content in buffers:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, dtype=np.uint8) if content else None
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _whole(values: Any, scale: float, dtype: Any) -> Any:
    return np.rint(values / scale).astype(dtype)
