"""A linear layer whose weight torchao rounded to 8 bits: it runs on torch's kernel where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_compress.compression.int8_kernel import kernel_of
from mlflow_compress.compression.layers import replace

_BITS = 8


class RoundedLinear(nn.Linear):
    """A linear layer with the names and the state of torch's, to be filled with a weight that torchao rounded."""

    @classmethod
    def like(cls, layer: nn.Linear) -> RoundedLinear:
        """Return a layer with the parameters of another one."""
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        return made.train(layer.training)

    def use_kernel(self) -> None:
        """Hand the codes to torch's kernel (see `networks.kernels`)."""
        weight = self._parameters.get("weight")
        codes, scales = getattr(weight, "qdata", None), getattr(weight, "scale", None)
        if codes is None or scales is None or scales.numel() != len(codes) or _zero_points(weight):
            return
        if (kernel := kernel_of(codes, scales.reshape(-1))) is not None:
            self.given = scales.dtype
            del self.weight
            self.kernel = kernel

    @property
    def kernel_name(self) -> str:
        """On what it runs; empty where the weight is unpacked at each call."""
        return self.kernel.name if "kernel" in self._modules else ""

    @property
    def packed_bits(self) -> int:
        """Bits of a weight; 0 where it was not rounded."""
        return _BITS if "kernel" in self._modules or hasattr(self.weight, "qdata") else 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        if "kernel" not in self._modules:
            return super().forward(inputs)
        made: Tensor = self.kernel(inputs)
        return made if self.bias is None else made + self.bias

    def __getattr__(self, name: str) -> Any:
        """Return the weight, unpacked, for modules that reach for it instead of calling the layer."""
        if name == "weight" and "kernel" in self._modules:
            return self.kernel.weight(self.given)
        return super().__getattr__(name)


def _zero_points(weight: Any) -> bool:
    zeros = getattr(weight, "zero_point", None)
    return zeros is not None and bool(torch.any(zeros != 0))


def ready_for_kernels(module: Any, layers: Iterable[Any]) -> Any:
    """Put layers that may run on a kernel in the place of plain ones; return the module, or what replaces it."""
    return replace(module, {layer: RoundedLinear.like(layer) for layer in layers})
