"""Torch's kernel for 8-bit weights with one scale per output channel: `_weight_int8pack_mm`.

It takes bfloat16 activations. Its weights are symmetric: a weight is `code * scale`. A zero point adds the same value
to all weights of a row, so this value is multiplied by the sum of the inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_compress.compression.dense_choice import Choice
from mlflow_compress.networks.stored_weights import Held

_MIDDLE = 128
_TILE = 64  # rows and columns are padded to it: the kernel reads whole vectors, past the end of shorter rows


def int8_kernel(codes: Tensor, scales: Tensor, zeros: Tensor, bits: int) -> Int8Kernel | None:
    """Return the kernel for a packed weight, or None if torch has no kernel for it on its device.

    Args:
        codes: Codes, uint8 [out, in].
        scales: Scales, bfloat16 [out, 1].
        zeros: Codes of the weight 0, uint8 [out, 1].
        bits: Bits per code; fewer than 8 are widened.
    """
    middle = _MIDDLE >> (8 - bits)
    signed = (codes.to(torch.int16) - middle).to(torch.int8)
    shift = (middle - zeros.float()) * scales.float()
    return kernel_of(signed, scales.view(-1), shift.view(-1) if bool(shift.any()) else None, bits)


def kernel_of(codes: Tensor, scales: Tensor, shift: Tensor | None = None, bits: int = 8) -> Int8Kernel | None:
    """Return the kernel for int8 codes [out, in], scales [out] and a value added to each weight of a row [out]."""
    return Int8Kernel(codes, scales, shift, bits) if _works(codes.device.type) else None


@functools.cache
def _works(device: str) -> bool:
    """Return whether this torch has the kernel for a device and it multiplies correctly there."""
    try:
        codes = torch.ones(_TILE, _TILE, dtype=torch.int8, device=device)
        scales = torch.ones(_TILE, dtype=torch.bfloat16, device=device)
        inputs = torch.eye(_TILE, dtype=torch.bfloat16, device=device)[:3]
        product = torch.ops.aten._weight_int8pack_mm(inputs, codes, scales)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool((product == 1).all())


class Int8Kernel(nn.Module):
    """An 8-bit weight for torch's kernel.

    Args:
        codes: Codes, int8 [out, in].
        scales: Scales [out].
        shift: Value added to each weight of a row: [out], or None.
        bits: Bits per code as stored.
    """

    def __init__(self, codes: Tensor, scales: Tensor, shift: Tensor | None, bits: int) -> None:
        super().__init__()
        self.rows, self.columns = codes.shape
        self.bits, self.gives_rows = bits, True
        self.codes: Tensor
        self.grid: Tensor
        self.shift: Tensor | None
        rows_left, columns_left = -self.rows % _TILE, -self.columns % _TILE
        filled = functional.pad(codes, (0, columns_left, 0, rows_left))
        self.register_buffer("codes", filled.contiguous(), persistent=False)
        grid = functional.pad(scales.to(torch.bfloat16), (0, rows_left))
        self.register_buffer("grid", grid.contiguous(), persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.choice = Choice(("int8", str(codes.device), tuple(codes.shape)))

    def held_weights(self) -> Iterator[Held]:
        """Yield the bytes and the number of parameters in them (see `stored_weights.held`)."""
        yield Held(self.codes, self.rows * self.columns, functools.partial(self.weight, torch.float32))
        yield Held(self.grid, 0)
        if self.shift is not None:
            yield Held(self.shift, 0)

    @property
    def name(self) -> str:
        """Name of the kernel, its device, and from how many rows the weight is unpacked instead."""
        widened = f", {self.bits} bits run as 8" if self.bits < 8 else ""
        return f"torch int8pack ({self.codes.device.type}{widened}{self.choice.summary})"

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        flat = inputs.reshape(-1, self.columns)
        dense = {dtype: functools.partial(self._densely, dtype=dtype) for dtype in (inputs.dtype, torch.float32)}
        return self.choice.of(flat, self._packed, dense)(flat).view(*inputs.shape[:-1], self.rows)

    def _packed(self, flat: Tensor) -> Tensor:
        filled = functional.pad(flat.to(torch.bfloat16), (0, self.codes.shape[1] - self.columns)).contiguous()
        product = torch.ops.aten._weight_int8pack_mm(filled, self.codes, self.grid)[:, : self.rows]
        if self.shift is not None:
            product = product.float() + flat.sum(1, keepdim=True, dtype=torch.float32) * self.shift
        return product.to(flat.dtype)  # type: ignore[no-any-return]

    def _densely(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        return (flat.to(dtype) @ self.weight(dtype).T).to(flat.dtype)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        codes, scales = self.codes[: self.rows, : self.columns], self.grid[: self.rows]
        weight = codes.to(dtype).mul_(scales.to(dtype)[:, None])
        return weight if self.shift is None else weight.add_(self.shift.to(dtype)[:, None])

    def rows_at(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Return rows of the weight: indices [n] to [n, in]."""
        rows = self.codes[indices, : self.columns].to(dtype).mul_(self.grid[indices].to(dtype)[:, None])
        return rows if self.shift is None else rows.add_(self.shift[indices].to(dtype)[:, None])
