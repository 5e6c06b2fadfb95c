"""Weights in few bits: integers packed into bytes, in groups that share a scale and a zero point.

A weight is `(code - zero) * scale`; codes are integers of 0 to 2^bits - 1. This module defines torch modules, so it is
imported where torch is: inside verbs.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor


def pack(values: Tensor, bits: int) -> Tensor:
    """Pack integers of 0 to 2^bits - 1, of any shape, into bytes, the first in the lowest bits.

    Returns:
        uint8 [ceil(count * bits / 8)].

    Raises:
        ValueError: a value needs more bits.
    """
    count, bytes_per_unit = values.numel(), bits // gcd(bits, 8)
    if count and not 0 <= int(values.min()) <= int(values.max()) < 2**bits:
        raise ValueError(f"values of {int(values.min())} to {int(values.max())} do not fit into {bits} bits")
    values_per_unit, dtype = 8 // gcd(bits, 8), _word(bytes_per_unit)
    units = torch.nn.functional.pad(values.reshape(-1), (0, -count % values_per_unit)).view(-1, values_per_unit)
    word = torch.zeros(len(units), dtype=dtype, device=values.device)
    for index in range(values_per_unit):
        word |= units[:, index].to(dtype) << bits * index
    packed = torch.stack([(word >> 8 * index & 255).to(torch.uint8) for index in range(bytes_per_unit)], 1)
    return packed.view(-1)[: -(-count * bits // 8)].clone()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Give the `count` integers that `pack` packed: uint8 [count]."""
    bytes_per_unit, values_per_unit = bits // gcd(bits, 8), 8 // gcd(bits, 8)
    dtype = _word(bytes_per_unit)
    units = torch.nn.functional.pad(packed, (0, -len(packed) % bytes_per_unit)).view(-1, bytes_per_unit)
    word = units[:, 0].to(dtype)
    for index in range(1, bytes_per_unit):
        word |= units[:, index].to(dtype) << 8 * index
    mask = 2**bits - 1
    parts = [(word >> bits * index & mask).to(torch.uint8) for index in range(values_per_unit)]
    return torch.stack(parts, 1).view(-1)[:count]


def _word(size: int) -> torch.dtype:
    """Give the smallest integer type that holds `size` bytes without touching its sign."""
    if size == 1:
        return torch.uint8
    return torch.int32 if size < 4 else torch.int64
