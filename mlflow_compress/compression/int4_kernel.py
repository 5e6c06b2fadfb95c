"""Torch's kernel for 4-bit weights (`_weight_int4pack_mm`); weights of fewer bits are widened for it.

It takes bfloat16 activations and stores the weights in tiles of rows. A weight is `(code - 8) * scale + shift`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_compress.compression.dense_choice import Choice
from mlflow_compress.networks.stored_weights import Held

_GROUPS = (256, 128, 64, 32)  # group sizes of the kernel
_ROWS, _MIDDLE = 16, 8
_CPU_BLOCKS = (64, 32, 16)  # rows of a tile, which depend on the CPU's vector length
_MOST_BITS = 4
_ROWS_AT_ONCE = 1024  # rows to repack at once: 32-bit codes of a whole weight would take 8 times its memory
_DENSE_BYTES = 2**25  # of the part of a weight that a dense product unpacks at once


def group_for(group_size: int, columns: int) -> int:
    """Return the largest group size of the kernel that divides `group_size`, or 0."""
    if group_size >= columns:  # one group per row: the row may be padded
        group_size = -(-columns // _GROUPS[-1]) * _GROUPS[-1]
    return next((size for size in _GROUPS if group_size % size == 0), 0)


def int4_kernel(codes: Tensor, scales: Tensor, zeros: Tensor, bits: int, group_size: int) -> Int4Kernel | None:
    """Return the kernel for a weight, or None if torch has no kernel for it on its device.

    Args:
        codes: Codes, uint8 [out, in].
        scales: Scales, bfloat16 [out, groups].
        zeros: Codes of the weight 0, uint8 [out, groups].
        bits: Bits per code.
        group_size: Weights per group.
    """
    size = group_for(group_size, codes.shape[1])
    if bits > _MOST_BITS or not size or not _works(codes.device.type):
        return None
    rows, columns = codes.shape
    padded_columns = -(-columns // group_size) * group_size if group_size < columns else -(-columns // size) * size
    shift = 2 ** (_MOST_BITS - 1) - 2 ** (bits - 1)  # centres the codes of fewer bits
    rows_left = -rows % ((_tile()[0] if codes.device.type == "cpu" else 0) or _ROWS)
    filled = functional.pad(codes + shift, (0, padded_columns - columns, 0, rows_left), value=_MIDDLE)
    repeats = (group_size if group_size < columns else padded_columns) // size
    steps = functional.pad(scales.float().repeat_interleave(repeats, 1), (0, 0, 0, rows_left))
    middle = functional.pad(zeros.float().repeat_interleave(repeats, 1) + shift, (0, 0, 0, rows_left))
    grid = torch.stack([steps, (_MIDDLE - middle) * steps], -1).transpose(0, 1).contiguous().to(torch.bfloat16)
    packed = [_to_kernel(part.to(torch.int32)) for part in filled.split(_ROWS_AT_ONCE)]
    return Int4Kernel(rows, columns, bits, size, torch.cat(packed), grid)


def _to_kernel(codes: Tensor) -> Tensor:
    """Pack codes, int32 [rows, columns], for the device's kernel."""
    if codes.device.type == "cpu":
        return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)  # type: ignore[no-any-return]
    pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
    return torch.ops.aten._convert_weight_to_int4pack(pairs, _inner(codes.shape[1]))  # type: ignore[no-any-return]


def _inner(columns: int) -> int:
    return next(tiles for tiles in (8, 4, 2) if columns % (16 * tiles) == 0)


def _multiply(inputs: Tensor, codes: Tensor, group: int, grid: Tensor) -> Tensor:
    if inputs.device.type == "cpu":
        return torch.ops.aten._weight_int4pack_mm_for_cpu(inputs, codes, group, grid)  # type: ignore[no-any-return]
    return torch.ops.aten._weight_int4pack_mm(inputs, codes, group, grid)  # type: ignore[no-any-return]


@functools.cache
def _works(device: str) -> bool:
    """Return whether this torch has the kernel for a device and it multiplies correctly there."""
    try:
        codes = torch.arange(_ROWS * 64, device=device).remainder(16).view(_ROWS, 64).int()
        grid = torch.ones(2, _ROWS, 2, dtype=torch.bfloat16, device=device)
        inputs = torch.eye(64, dtype=torch.bfloat16, device=device)[:3]
        product = _multiply(inputs, _to_kernel(codes), 32, grid)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.equal(product.float(), codes[:, :3].T.float() - _MIDDLE + 1)


@functools.cache
def _tile() -> tuple[int, tuple[int, ...]]:
    """Return the rows of the CPU's tile, and the row at each position in it: low halves first, then high ones.

    The number of rows is 0 if the order is not supported here.
    """
    for rows in _CPU_BLOCKS:
        digits = []
        for shift in (0, 4):
            numbers = (torch.arange(2 * rows) >> shift & 15).int()[:, None].expand(-1, 4).contiguous()
            packed = _to_kernel(numbers).view(2, 4, rows // 2)
            digits.append(torch.cat([packed & 15, packed >> 4], -1).int())
        row_numbers = digits[0] + 16 * digits[1]
        order = row_numbers[0, 0].tolist()
        expected = torch.tensor(order)[None, None] + torch.tensor([0, rows])[:, None, None]
        if sorted(order) == list(range(rows)) and torch.equal(row_numbers & 255, expected.expand(2, 4, rows) & 255):
            return rows, tuple(order)
    return 0, ()


class Int4Kernel(nn.Module):
    """A weight packed for torch's 4-bit kernel.

    Args:
        rows: Output channels.
        columns: Input channels.
        bits: Bits per code as stored; here a code takes 4.
        group: Weights that share a scale.
        codes: Codes as packed for the kernel.
        grid: Scales and shifts, bfloat16 [groups, out, 2].
    """

    def __init__(self, rows: int, columns: int, bits: int, group: int, codes: Tensor, grid: Tensor) -> None:
        super().__init__()
        self.rows, self.columns, self.bits, self.group = rows, columns, bits, group
        self.wide = grid.shape[0] * group
        self.codes: Tensor
        self.grid: Tensor
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("grid", grid, persistent=False)
        self.block = _tile()[0] if codes.device.type == "cpu" else 0
        self.gives_rows = self.block > 0
        self.choice = Choice(("int4", str(codes.device), tuple(grid.shape[:2]), group))

    def held_weights(self) -> Iterator[Held]:
        """Yield the bytes and the number of parameters in them (see `stored_weights.held`)."""
        yield Held(self.codes, self.rows * self.columns, functools.partial(self.weight, torch.float32))
        yield Held(self.grid, 0)

    @property
    def name(self) -> str:
        """Name of the kernel, its device, and from how many rows the weight is unpacked instead."""
        widened = f", {self.bits} bits run as 4" if self.bits < _MOST_BITS else ""
        return f"torch int4pack ({self.codes.device.type}{widened}{self.choice.summary})"

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        flat = inputs.reshape(-1, self.columns)
        dense = {dtype: functools.partial(self._densely, dtype=dtype) for dtype in (inputs.dtype, torch.float32)}
        multiply = self.choice.of(flat, self._packed, dense if self.block else {})
        return multiply(flat).view(*inputs.shape[:-1], self.rows)

    def _packed(self, flat: Tensor) -> Tensor:
        filled = functional.pad(flat.to(torch.bfloat16), (0, self.wide - self.columns)).contiguous()
        return _multiply(filled, self.codes, self.group, self.grid)[:, : self.rows].to(flat.dtype)

    def _densely(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        inputs = flat.to(dtype)
        product = inputs.new_empty(len(inputs), self.grid.shape[1])
        for part, turned, order in self._parts(dtype):
            product[:, part] = (inputs @ turned[: self.columns]).index_select(1, order)
        return product[:, : self.rows].to(flat.dtype)

    def _parts(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows of the weight as [in, rows] in the tiles' order, and the position of each row in it."""
        rows = self.grid.shape[1]
        tiles = max(1, _DENSE_BYTES // (self.wide * self.block * dtype.itemsize))
        for start in range(0, rows, tiles * self.block):
            part = slice(start, min(start + tiles * self.block, rows))
            yield part, *self._turned(dtype, part)

    def _turned(self, dtype: torch.dtype, part: slice) -> tuple[Tensor, Tensor]:
        """Return one of the parts, and the position of each of its rows."""
        grid = self.grid[:, part]
        groups, rows, _ = grid.shape
        order = _order(self.block, rows, str(self.codes.device))
        scale, shift = grid[:, order.argsort()].to(dtype).unbind(-1)
        tiles = self.codes[part].view(rows // self.block, self.wide, self.block // 2).transpose(0, 1)
        weight = torch.empty(self.wide, 2, rows // self.block, self.block // 2, dtype=dtype, device=self.codes.device)
        weight[:, 0].copy_((tiles & 15).view(torch.int8).sub_(_MIDDLE))
        weight[:, 1].copy_((tiles >> 4).view(torch.int8).sub_(_MIDDLE))
        grouped = weight.view(groups, self.group, rows)
        grouped.mul_(scale[:, None]).add_(shift[:, None])
        return weight.view(self.wide, rows), order

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        if self.block:
            weight = torch.empty(self.grid.shape[1], self.columns, dtype=dtype, device=self.codes.device)
            for part, turned, order in self._parts(dtype):
                weight[part] = turned[: self.columns].T[order]
            return weight[: self.rows]
        identity = torch.eye(self.wide, dtype=torch.bfloat16, device=self.codes.device)
        product = _multiply(identity, self.codes, self.group, self.grid)
        return product[: self.columns, : self.rows].T.to(dtype).contiguous()

    def rows_at(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Return rows of the weight: indices [n] to [n, in]."""
        _, order = _tile()
        positions = torch.tensor(order).argsort()[indices % self.block]
        half = self.block // 2
        tiles = self.codes.view(-1, self.wide, half)
        packed = tiles[indices // self.block, :, positions % half]
        codes = torch.where(positions[:, None] < half, packed & 15, packed >> 4).to(dtype)
        scale, shift = self.grid[:, indices].to(dtype).transpose(0, 1).unbind(-1)
        values = (codes.view(len(indices), -1, self.group) - _MIDDLE) * scale[..., None] + shift[..., None]
        return values.view(len(indices), -1)[:, : self.columns]


@functools.lru_cache(maxsize=64)
def _order(block: int, rows: int, device: str) -> Tensor:
    """Return the flat position of each row in [halves, tiles, half a tile]."""
    _, order = _tile()
    positions = torch.tensor(order).argsort()
    index = torch.arange(rows)
    position, half = positions[index % block], block // 2
    return ((position // half) * (rows // block) + index // block) * half + position % half
