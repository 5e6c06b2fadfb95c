"""Linear layers of bitsandbytes that are filled from plain tensors and report their weights.

The library's own layers take quantised weights only from tensor subclasses, which can't be read back without running
code. This module defines torch modules: import it only inside functions, as torch.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.nn import Params4bit
from torch import Tensor, nn

from mlflow_compress.compression.packing import unpack
from mlflow_compress.networks.stored_weights import Held

_ZERO_CODE = 7  # NF4's code of 0
_KERNEL_OUTPUTS = 32  # number that the AVX512-BF16 kernel computes at once
# it logs at every call of every layer that inputs are cast to float16
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


class Linear8bit(nn.Module):
    """LLM.int8(): the arithmetic of `bitsandbytes.nn.Linear8bitLt`. It has no memory until it is filled.

    Args:
        layer: Linear layer to replace.
        threshold: Magnitude from which an input channel is computed in the inputs' own precision.
    """

    def __init__(self, layer: nn.Linear, threshold: float) -> None:
        super().__init__()
        self.in_features, self.out_features, self.threshold = layer.in_features, layer.out_features, threshold
        empty = torch.empty(layer.weight.shape, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.bias = layer.bias
        self.scales: Tensor
        self.register_buffer("scales", torch.empty(layer.out_features, dtype=torch.float32, device="meta"))

    @classmethod
    def of(cls, layer: nn.Linear, threshold: float) -> Linear8bit:
        """Round a layer's weights to int8, with a scale for each output channel."""
        new = cls(layer, threshold)
        codes, new.scales, _ = bitsandbytes.functional.int8_vectorwise_quant(layer.weight.detach().half())
        new.weight = nn.Parameter(codes, requires_grad=False)
        return new

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        state = bitsandbytes.MatmulLtState()
        state.CB, state.SCB, state.threshold = self.weight.data, self.scales, self.threshold
        state.has_fp16_weights = state.is_training = False
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        output: Tensor = bitsandbytes.matmul(inputs, self.weight, bias=bias, state=state)
        return output

    def held_weights(self) -> Iterator[Held]:
        """Yield the weights and their scales (see `stored_weights.held`)."""
        yield Held(self.weight.data, self.weight.numel())
        yield Held(self.scales, 0)
        if self.bias is not None:
            yield Held(self.bias.data, self.bias.numel())


class Linear4bit(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
    """A layer of 4-bit NormalFloat weights. It has no memory until it is filled.

    On CPUs with AVX512-BF16 the library repacks the weights at the first call for a special kernel. That kernel takes
    only whole blocks of 32 outputs and whole blocks of weights; other shapes are computed as on other CPUs. The layer
    saves the original codes: the library's own unpacking would round the scales a second time.

    Args:
        layer: Linear layer to replace.
        block_size: Weights that share a scale.
        double: Whether the scales are quantised too.
    """

    def __init__(self, layer: nn.Linear, block_size: int, double: bool) -> None:
        super().__init__(layer.in_features, layer.out_features, False, device="meta")
        self.block_size, self.double = block_size, double
        self.bias = layer.bias
        has_whole_blocks = layer.out_features % _KERNEL_OUTPUTS == 0 and layer.in_features % block_size == 0
        # absent before bitsandbytes 0.49, which has no such kernel
        self.support_avx512bf16_for_cpu = getattr(self, "support_avx512bf16_for_cpu", False) and has_whole_blocks
        self._quantised: tuple[Tensor, Any] | None = None

    @classmethod
    def of(cls, layer: nn.Linear, block_size: int, double: bool) -> Linear4bit:
        """Quantise a layer's weights."""
        new = cls(layer, block_size, double)
        weight = Params4bit(
            layer.weight.detach(), blocksize=block_size, compress_statistics=double, quant_type="nf4", module=new
        )
        new.weight = weight.to("cpu")  # this quantises
        if new.support_avx512bf16_for_cpu:
            new._quantised = new.weight.data, copy.deepcopy(new.weight.quant_state)
        new.eval()  # in training it uses another kernel
        return new

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in], computed in the inputs' type."""
        self.compute_dtype, self.compute_type_is_set = inputs.dtype, True
        output: Tensor = super().forward(inputs)
        return output

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        """Save the original codes, whatever the current layout of the weights."""
        if self._quantised is not None:
            codes, state = self._quantised
            self.weight.data, self.weight.quant_state = codes, copy.deepcopy(state)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        """Load packed weights and their quantisation state, as the library's layer saves them."""
        _, _, missing, _, errors = args
        names = [f"{prefix}weight", *([f"{prefix}bias"] if self.bias is not None else [])]
        if absent := [name for name in names if name not in state_dict]:
            missing.extend(absent)
            return
        start = f"{prefix}weight."
        stats = {name.removeprefix(start): value for name, value in state_dict.items() if name.startswith(start)}
        weight = Params4bit.from_prequantized(state_dict[names[0]], stats, device="cpu", module=self)
        if weight.quant_state.shape != (self.out_features, self.in_features):
            errors.append(f"{names[0]} has another shape: {tuple(weight.quant_state.shape)}")
            return
        self.weight = weight
        if self.bias is not None:
            self.bias = nn.Parameter(state_dict[names[1]], requires_grad=False)

    def held_weights(self) -> Iterator[Held]:
        """Yield the bytes and the number of parameters in them (see `stored_weights.held`)."""
        count = self.in_features * self.out_features
        codes = self.weight.data.view(-1)
        yield Held(self.weight.data, count, lambda: unpack(codes, 4, count) - _ZERO_CODE)
        for value in self.weight.quant_state.as_dict().values():
            if isinstance(value, Tensor):
                yield Held(value, 0)
        if self.bias is not None:
            yield Held(self.bias.data, self.bias.numel())
