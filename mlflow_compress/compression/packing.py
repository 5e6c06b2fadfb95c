"""Weights in few bits: integers packed into bytes, in groups that share a scale and a zero point.

A weight is `(code - zero) * scale`; codes and zero points are integers from 0 to 2^bits - 1. A group is `group_size`
weights of one row, and a row is all weights of one output channel. This module defines torch modules: import it only
inside functions, as torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_compress.compression.few_bit_kernels import kernel_for
from mlflow_compress.compression.weight_groups import Grid, fitting, grouped
from mlflow_compress.networks.stored_weights import Held

_WORTH_BITS = 16  # bits per weight, including scales and zero points, from which packing saves nothing


def pack(values: Tensor, bits: int) -> Tensor:
    """Pack integers from 0 to 2^bits - 1, of any shape, into bytes, the first in the lowest bits.

    Args:
        values: Integers.
        bits: 1 to 8.

    Returns:
        uint8 [ceil(count * bits / 8)].

    Raises:
        ValueError: A value needs more bits.
    """
    count, bytes_per_unit, values_per_unit = values.numel(), bits // gcd(bits, 8), 8 // gcd(bits, 8)
    if count and not 0 <= int(values.min()) <= int(values.max()) < 2**bits:
        raise ValueError(f"values of {int(values.min())} to {int(values.max())} do not fit into {bits} bits")
    units = functional.pad(values.reshape(-1), (0, -count % values_per_unit)).view(-1, values_per_unit)
    word = torch.zeros(len(units), dtype=_word(bytes_per_unit), device=values.device)
    for index in range(values_per_unit):
        word |= units[:, index].to(word.dtype) << bits * index
    packed = torch.stack([(word >> 8 * index & 255).to(torch.uint8) for index in range(bytes_per_unit)], 1)
    return packed.view(-1)[: -(-count * bits // 8)].clone()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Unpack `count` integers of `pack`: uint8 [count]."""
    bytes_per_unit, values_per_unit = bits // gcd(bits, 8), 8 // gcd(bits, 8)
    if bits == 8:
        return packed[:count]
    if missing := -len(packed) % bytes_per_unit:
        packed = functional.pad(packed, (0, missing))
    units = packed.view(-1, bytes_per_unit)
    word = units[:, 0].to(_word(bytes_per_unit))
    for index in range(1, bytes_per_unit):
        word |= units[:, index].to(word.dtype) << 8 * index
    parts = [(word >> bits * index & 2**bits - 1).to(torch.uint8) for index in range(values_per_unit)]
    return torch.stack(parts, 1).view(-1)[:count]


def _word(size: int) -> torch.dtype:
    """Return the smallest integer type that holds `size` bytes without using its sign."""
    if size == 1:
        return torch.uint8
    return torch.int32 if size < 4 else torch.int64


class Packed(nn.Module):
    """A weight in few bits. It has no memory until it is filled: by `fill`, or from a file.

    Args:
        shape: Shape of the weight, output channels first.
        bits: Bits per code, 1 to 8.
        group_size: Weights that share a scale and a zero point, if it divides a row (see `fitting`).
    """

    def __init__(self, shape: Iterable[int], bits: int, group_size: int) -> None:
        super().__init__()
        self.shape, self.bits = torch.Size(shape), bits
        self.rows, self.columns = self.shape[0], prod(self.shape[1:])
        self._requested, self.group_size = group_size, fitting(group_size, self.columns)
        empty = torch.empty(-(-self.shape.numel() * bits // 8), dtype=torch.uint8, device="meta")
        self.codes = nn.Parameter(empty, requires_grad=False)
        # buffers: families use the type of the first floating-point parameter as the model's type
        self.scales: Tensor
        self.zeros: Tensor
        self.register_buffer("scales", self._for_groups(torch.bfloat16))
        self.register_buffer("zeros", self._for_groups(torch.uint8))
        self.kernel: Any = None
        self.is_looked_up = False  # by an embedding: then the kernel must give single rows too

    def _for_groups(self, dtype: torch.dtype) -> Tensor:
        return torch.empty(self.rows, -(-self.columns // self.group_size), dtype=dtype, device="meta")

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Load the tensors; in those of earlier versions the last group of a row may be shorter."""
        scales = state.get(f"{prefix}scales")
        ragged = -(-self.columns // self._requested)
        if scales is not None and tuple(scales.shape) == (self.rows, ragged):
            self.group_size = min(self._requested, self.columns)
            self.scales, self.zeros = self._for_groups(torch.bfloat16), self._for_groups(torch.uint8)
        super()._load_from_state_dict(state, prefix, *arguments)

    def repack(self) -> None:
        """Repack the weight for a kernel of its device, if there is one, and drop the portable codes."""
        if self.kernel is None and not self.codes.is_meta:
            codes = unpack(self.codes, self.bits, self.shape.numel()).view(self.rows, self.columns)
            kernel = kernel_for(codes, self.scales, self.zeros, self.bits, self.group_size)
            if kernel is not None and (kernel.gives_rows or not self.is_looked_up):
                self.kernel = kernel
                self.codes, self.scales, self.zeros = None, None, None  # type: ignore[assignment]

    @classmethod
    def of(cls, weight: Tensor, bits: int, group_size: int) -> Packed:
        """Round a weight to the nearest values of each group's grid."""
        packed = cls(weight.shape, bits, group_size)
        groups = grouped(weight.detach().float().reshape(packed.rows, -1), packed.group_size)
        grid = Grid.over(groups, bits)
        return packed.fill(grid.encode(groups).view(packed.rows, -1), grid.scales, grid.zeros)

    def fill(self, codes: Tensor, scales: Tensor, zeros: Tensor) -> Packed:
        """Set codes [rows, columns] and scales and zero points [rows, groups], with any trailing axes of 1."""
        self.codes = nn.Parameter(pack(codes, self.bits), requires_grad=False)
        self.scales, self.zeros = scales.reshape(self.scales.shape), zeros.reshape(self.zeros.shape)
        return self

    def forward(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weight."""
        if self.kernel is not None:
            return self.kernel.weight(dtype).view(self.shape)  # type: ignore[no-any-return]
        codes = unpack(self.codes, self.bits, self.shape.numel()).view(self.rows, self.columns)
        return self._decode(codes, self.scales, self.zeros, dtype).view(self.shape)

    def rows_at(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return rows of the weight: indices [...] to weights [..., columns]. A row must fill whole bytes."""
        flat = indices.reshape(-1)
        if self.kernel is not None:
            return self.kernel.rows_at(flat, dtype).view(*indices.shape, self.columns)  # type: ignore[no-any-return]
        codes = unpack(self.codes.view(self.rows, -1)[flat].view(-1), self.bits, len(flat) * self.columns)
        rows = self._decode(codes.view(-1, self.columns), self.scales[flat], self.zeros[flat], dtype)
        return rows.view(*indices.shape, self.columns)

    def _decode(self, codes: Tensor, scales: Tensor, zeros: Tensor, dtype: torch.dtype) -> Tensor:
        grid = Grid(self.bits, scales[..., None], zeros[..., None])
        weights = grid.decode(grouped(codes, self.group_size), dtype)
        return weights.view(len(codes), -1)[:, : self.columns]

    def held_weights(self) -> Iterator[Held]:
        """Yield the bytes and the number of parameters in them (see `stored_weights.held`)."""
        if self.kernel is not None:
            yield from self.kernel.held_weights()
            return
        yield Held(self.codes.data, self.shape.numel(), self)
        yield Held(self.scales, 0)
        yield Held(self.zeros, 0)

    @property
    def is_worth_it(self) -> bool:
        """Whether the weight takes less than 16 bits per element."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in (self.codes, self.scales, self.zeros))
        return size * 8 < _WORTH_BITS * self.shape.numel()
