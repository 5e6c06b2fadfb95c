"""A linear layer whose weight torchao rounded to 8 bits; it runs on torch's kernel if there is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_compress.compression.int8_kernel import kernel_of
from mlflow_compress.compression.layers import replace

_BITS = 8


class RoundedLinear(nn.Linear):
    """A linear layer with torch's names and state, to be filled with a weight that torchao rounded."""

    @classmethod
    def like(cls, layer: nn.Linear) -> RoundedLinear:
        """Return a layer with the parameters of another one."""
        new = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        new.weight, new.bias = layer.weight, layer.bias
        return new.train(layer.training)

    def use_kernel(self) -> None:
        """Repack the codes for torch's kernel (see `networks.kernels`)."""
        weight = self._parameters.get("weight")
        codes, scales = getattr(weight, "qdata", None), getattr(weight, "scale", None)
        if codes is None or scales is None or scales.numel() != len(codes) or _zero_points(weight):
            return
        if (kernel := kernel_of(codes, scales.reshape(-1))) is not None:
            self.weight_dtype = scales.dtype
            del self.weight
            self.kernel = kernel

    @property
    def kernel_name(self) -> str:
        """Name of the kernel; empty if the weight is unpacked at each call."""
        return self.kernel.name if "kernel" in self._modules else ""

    @property
    def packed_bits(self) -> int:
        """Bits per weight; 0 if it was not rounded."""
        return _BITS if "kernel" in self._modules or hasattr(self.weight, "qdata") else 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        if "kernel" not in self._modules:
            return super().forward(inputs)
        product: Tensor = self.kernel(inputs)
        return product if self.bias is None else product + self.bias

    def __getattr__(self, name: str) -> Any:
        """Return the unpacked weight for modules that read it instead of calling the layer."""
        if name == "weight" and "kernel" in self._modules:
            return self.kernel.weight(self.weight_dtype)
        return super().__getattr__(name)


def _zero_points(weight: Any) -> bool:
    zeros = getattr(weight, "zero_point", None)
    return zeros is not None and bool(torch.any(zeros != 0))


def ready_for_kernels(module: Any, layers: Iterable[Any]) -> Any:
    """Replace plain layers by layers that may run on a kernel; return the module or its replacement."""
    return replace(module, {layer: RoundedLinear.like(layer) for layer in layers})
