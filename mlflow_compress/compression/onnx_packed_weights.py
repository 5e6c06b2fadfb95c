"""Weights of few-bit matrices in an ONNX file: parameters of which several share a byte, scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_compress.networks.stored_weights import Held

MICROSOFT = "com.microsoft"  # the domain of both operators
PRODUCT, GATHER = "MatMulNBits", "GatherBlockQuantized"


def held(model: Any) -> dict[str, Held]:
    """Return the weights of an ONNX model's few-bit matrices, by the names of their constants.

    Codes hold the parameters, two of 4 bits per byte; scales and zero points hold none.
    """
    import torch

    constants = {constant.name: constant for constant in model.graph.initializer}
    reshaped = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reshape"}
    weights: dict[str, Held] = {}
    for node in model.graph.node:
        if node.op_type not in (PRODUCT, GATHER) or node.domain != MICROSOFT:
            continue
        inputs = [reshaped.get(name, name) for name in node.input]
        codes, scales, *zeros = inputs[1:4] if node.op_type == PRODUCT else (inputs[0], *inputs[2:4])
        for name in filter(None, (scales, *zeros)):
            weights[name] = Held(torch.from_numpy(_values(constants[name])), 0)
        bits = attribute(node, "bits", 4)
        packed = _values(constants[codes])
        zero = _values(constants[zeros[0]]) if zeros and zeros[0] else None
        weights[codes] = Held(torch.from_numpy(packed), packed.size * 8 // bits, _Unpacked(packed, bits, zero))
    return weights


@dataclass(frozen=True)
class _Unpacked:
    """Codes of blocks minus their zero points: 0 where the weight is 0.

    Attributes:
        codes: Codes, uint8 [channels, blocks, bytes].
        bits: 4 or 8.
        zeros: Packed zero points of each channel's blocks; None: the middle of the range.
    """

    codes: Any
    bits: int
    zeros: Any

    def __call__(self) -> Any:
        import torch

        codes = torch.from_numpy(_spread(self.codes, self.bits)).to(torch.int16)
        if self.zeros is None:
            return codes - 2 ** (self.bits - 1)
        channels, count = codes.shape[:2]
        zeros = torch.from_numpy(_spread(self.zeros.reshape(channels, -1), self.bits)).to(torch.int16)
        return codes - zeros[:, :count, None]


def _spread(packed: Any, bits: int) -> Any:
    """Return an array with one code per byte, unpacked along the last axis."""
    import numpy as np

    if bits == 8:
        return np.array(packed)
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return a node's attribute: a number, or a list of them."""
    from onnx import helper

    return next((helper.get_attribute_value(field) for field in node.attribute if field.name == name), default)


def _values(tensor: Any) -> Any:
    """Return a copy of a constant as an array."""
    import numpy as np
    from onnx import numpy_helper

    return np.array(numpy_helper.to_array(tensor))
