"""Int8 layers whose inputs are rounded at each call: linear ones with one scale per token, and recurrent ones.

This module defines torch modules: import it only inside functions, as torch.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_compress.networks.stored_weights import Held

_MOST = 127  # largest code: symmetric, so that no zero point is needed
_EXACT_PRODUCTS = 2**24 // _MOST**2  # the number of products of codes whose sum float32 represents exactly
_LEAST_SCALE = torch.finfo(torch.float32).tiny


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows [..., columns] to int8 by their largest magnitude; return codes and float32 scales [..., 1]."""
    scales = (rows.abs().amax(-1, keepdim=True).float() / _MOST).clamp_(min=_LEAST_SCALE)
    return (rows * scales.reciprocal()).round_().clamp_(-_MOST, _MOST).to(torch.int8), scales


class Int8Linear(nn.Module):
    """A linear layer in 8 bits: one scale per output channel, and one per token at each call.

    It multiplies integers with oneDNN's int8 kernels through `torch._int_mm` where they are fast, else exactly in
    float32. It has no memory until it is filled.

    Args:
        in_features: Length of an input.
        out_features: Length of an output.
        bias: Bias [out] or None.
    """

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        empty = torch.empty(out_features, in_features, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.scales: Tensor
        self.register_buffer("scales", torch.empty(out_features, dtype=torch.float32, device="meta"))
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, per_channel: bool = True) -> Int8Linear:
        """Round a weight [out, in], with one scale per output channel or one in total."""
        new = cls(weight.shape[1], weight.shape[0], bias)
        weight = weight.detach().float()
        codes, scales = quantise_rows(weight if per_channel else weight.reshape(1, -1))
        new.weight = nn.Parameter(codes.view(weight.shape), requires_grad=False)
        new.scales = scales.view(-1).expand(new.out_features).contiguous()
        return new

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        rows = inputs.reshape(-1, self.in_features)
        codes, scales = quantise_rows(rows)
        output = _product(codes, self.weight).to(torch.float32).mul_(self.scales).mul_(scales)
        if self.bias is not None:
            output.add_(self.bias)
        return output.to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)

    @property
    def kernel_name(self) -> str:
        """Name of the integer kernel; empty if float32 multiplies the integers."""
        return "torch._int_mm" if _has_fast_integers() else ""

    @property
    def packed_bits(self) -> int:
        """Bits per weight as stored."""
        return 8

    def held_weights(self) -> Iterator[Held]:
        """Yield the weights and their scales (see `stored_weights.held`)."""
        yield Held(self.weight.data, self.weight.numel())
        yield Held(self.scales, 0)
        if self.bias is not None:
            yield Held(self.bias.data, self.bias.numel())


def _product(codes: Tensor, weight: Tensor) -> Tensor:
    """Multiply int8 [rows, in] by int8 [out, in]: exact sums, int32 [rows, out]."""
    if not len(codes):
        return torch.zeros(0, len(weight), dtype=torch.int32)
    return torch._int_mm(codes, weight.T) if _has_fast_integers() else _product_in_float(codes, weight)


def _product_in_float(codes: Tensor, weight: Tensor) -> Tensor:
    """Multiply the integers in float32, in parts whose sums it represents exactly."""
    total = torch.zeros(len(codes), len(weight), dtype=torch.int32)
    with torch.autocast("cpu", enabled=False):
        for start in range(0, codes.shape[1], _EXACT_PRODUCTS):
            part = slice(start, start + _EXACT_PRODUCTS)
            total += (codes[:, part].float() @ weight[:, part].float().T).int()
    return total


@functools.cache
def _has_fast_integers() -> bool:
    """Return whether `torch._int_mm` has an exact, vectorised kernel on this CPU.

    It has vectorised kernels with AVX-512; those without VNNI add two products in 16 bits, and large sums saturate.
    """
    full = torch.full((32, 256), _MOST, dtype=torch.int8)
    is_vectorised = torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AMX"))
    return is_vectorised and bool((torch._int_mm(full, full.T) == _MOST * _MOST * 256).all())


class Int8Recurrent(nn.Module):
    """An LSTM or GRU with int8 weights, one scale per row; its inputs are rounded at each call with one scale.

    The kernels are torch's (FBGEMM, oneDNN), which take 7-bit inputs because of CPUs without VNNI. It has no memory
    until it is filled.

    Source: torch.quantized_lstm, torch.quantized_gru.

    Args:
        layer: Layer to replace: `nn.LSTM` without projections, or `nn.GRU`.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.mode, self.hidden_size, self.num_layers = layer.mode, layer.hidden_size, layer.num_layers
        self.input_size, self.batch_first, self.bidirectional = layer.input_size, layer.batch_first, layer.bidirectional
        self.matrices = [name for names in layer._all_weights for name in names if name.startswith("weight")]
        self.has_bias = layer.bias
        self._cells: list[Any] | None = None
        for name, parameter in layer.named_parameters(recurse=False):
            if name in self.matrices:
                codes = torch.empty(parameter.shape, dtype=torch.int8, device="meta")
                self.register_parameter(name, nn.Parameter(codes, requires_grad=False))
                self.register_buffer(f"{name}_scales", torch.empty(len(parameter), device="meta"))
            else:
                self.register_parameter(name, nn.Parameter(parameter.detach(), requires_grad=False))

    @classmethod
    def of(cls, layer: Any) -> Int8Recurrent:
        """Round a layer's weights."""
        new = cls(layer)
        for name in new.matrices:
            codes, scales = quantise_rows(getattr(layer, name).detach().float())
            setattr(new, name, nn.Parameter(codes, requires_grad=False))
            setattr(new, f"{name}_scales", scales.view(-1))
        return new

    def forward(self, inputs: Any, state: Any = None) -> Any:
        """Return the outputs and the last state (a pair for an LSTM).

        Inputs may be packed sequences, or have no batch axis.
        """
        if self._cells is None:
            self._cells = [self._cell(index) for index in range(len(self.matrices) // 2)]
        packed = inputs if isinstance(inputs, nn.utils.rnn.PackedSequence) else None
        data: Tensor = inputs.data if packed is not None else inputs
        is_single = packed is None and data.dim() == 2
        if is_single:
            data = data.unsqueeze(0 if self.batch_first else 1)
        states = self._states(data, packed, state, is_single)
        shape = (True, self.num_layers, 0.0, False, self.bidirectional)
        if self.mode == "LSTM":
            settings = {"dtype": torch.qint8, "use_dynamic": True}
            if packed is not None:
                output, *states_after = torch.quantized_lstm(
                    data, packed.batch_sizes, states, self._cells, *shape, **settings
                )
            else:
                output, *states_after = torch.quantized_lstm(
                    data, states, self._cells, *shape, self.batch_first, **settings
                )
        elif packed is not None:
            output, *states_after = torch.quantized_gru(data, packed.batch_sizes, states[0], self._cells, *shape)
        else:
            output, *states_after = torch.quantized_gru(data, states[0], self._cells, *shape, self.batch_first)
        return self._as_given(output, states_after, packed, is_single)

    def _states(self, data: Tensor, packed: Any, state: Any, is_single: bool) -> list[Tensor]:
        """Return the initial states [layers * directions, batch, hidden], in the order of the batch."""
        count = 2 if self.mode == "LSTM" else 1
        if state is None:
            batch = int(packed.batch_sizes[0]) if packed is not None else data.shape[0 if self.batch_first else 1]
            directions = 2 if self.bidirectional else 1
            return [data.new_zeros(self.num_layers * directions, batch, self.hidden_size)] * count
        states = list(state) if count == 2 else [state]
        if is_single:
            return [tensor.unsqueeze(1) for tensor in states]
        if packed is not None and packed.sorted_indices is not None:
            return [tensor.index_select(1, packed.sorted_indices) for tensor in states]
        return states

    def _as_given(self, output: Any, last: list[Tensor], packed: Any, is_single: bool) -> Any:
        """Convert outputs and states to the form of the inputs."""
        if packed is not None:
            output = nn.utils.rnn.PackedSequence(
                output, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
            )
            if packed.unsorted_indices is not None:
                last = [tensor.index_select(1, packed.unsorted_indices) for tensor in last]
        elif is_single:
            output, last = output.squeeze(0 if self.batch_first else 1), [tensor.squeeze(1) for tensor in last]
        return output, tuple(last) if self.mode == "LSTM" else last[0]

    def _cell(self, index: int) -> Any:
        """Pack the weights of one layer and direction for the kernel."""
        parts = []
        names = self.matrices[2 * index : 2 * index + 2]
        biases = [
            getattr(self, name.replace("weight", "bias")) if self.has_bias else torch.zeros(len(getattr(self, name)))
            for name in names
        ]
        for name, bias in zip(names, biases, strict=True):
            codes, scales = getattr(self, name).detach(), getattr(self, f"{name}_scales").double()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # these tensors are deprecated, but the kernels require them
                zeros = torch.zeros(len(scales), dtype=torch.long)
                weight = torch._make_per_channel_quantized_tensor(codes, scales, zeros, 0)
                parts.append(torch.ops.quantized.linear_prepack(weight, bias))
        return torch.ops.quantized.make_quantized_cell_params_dynamic(*parts, *biases, True)

    def held_weights(self) -> Iterator[Held]:
        """Yield the weights and their scales (see `stored_weights.held`)."""
        for parameter in self.parameters(recurse=False):
            yield Held(parameter.data, parameter.numel())
        for name in self.matrices:
            yield Held(getattr(self, f"{name}_scales"), 0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Int8Recurrent:
        """Copy the layer without the packed weights, which can't be copied."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        cells, self._cells = self._cells, None
        try:
            new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        finally:
            self._cells = cells
        return new


def recurrent(module: Any) -> list[Any]:
    """Return the LSTM and GRU layers that the int8 kernels support."""
    kinds = (nn.LSTM, nn.GRU)
    return [layer for layer in module.modules() if type(layer) in kinds and not getattr(layer, "proj_size", 0)]
