"""Torch's kernel for 4-bit weights, and weights of fewer bits widened to it: `_weight_int4pack_mm`.

It takes bfloat16 activations, and keeps the weights in an order of its own, of tiles of rows. A weight is
`(code - 8) * scale + shift`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_compress.compression.dense_choice import Choice
from mlflow_compress.networks.stored_weights import Held

_GROUPS = (256, 128, 64, 32)  # that the kernel takes
_ROWS, _MIDDLE = 16, 8
_CPU_BLOCKS = (64, 32, 16)  # rows of a tile, by the vectors of the machine
_MOST_BITS = 4


def group_for(group_size: int, columns: int) -> int:
    """Return the kernel's group that divides ours; 0 where there is none."""
    if group_size >= columns:  # one group a row: it may be filled up
        group_size = -(-columns // _GROUPS[-1]) * _GROUPS[-1]
    return next((size for size in _GROUPS if group_size % size == 0), 0)


def int4_kernel(codes: Tensor, scales: Tensor, zeros: Tensor, bits: int, group_size: int) -> Int4Kernel | None:
    """Return the kernel for a weight, or None where torch has none for it on its device.

    Args:
        codes: uint8 [out, in].
        scales: bfloat16 [out, groups].
        zeros: codes of the weight 0, uint8 [out, groups].
        bits: of a code.
        group_size: weights of a group.
    """
    size = group_for(group_size, codes.shape[1])
    if bits > _MOST_BITS or not size or not _works(codes.device.type):
        return None
    rows, columns = codes.shape
    wide = -(-columns // group_size) * group_size if group_size < columns else -(-columns // size) * size
    shift = 2 ** (_MOST_BITS - 1) - 2 ** (bits - 1)  # of fewer bits: so that 0 lies in the middle
    rows_left = -rows % ((_tile()[0] if codes.device.type == "cpu" else 0) or _ROWS)
    filled = functional.pad(codes + shift, (0, wide - columns, 0, rows_left), value=_MIDDLE)
    repeats = (group_size if group_size < columns else wide) // size
    steps = functional.pad(scales.float().repeat_interleave(repeats, 1), (0, 0, 0, rows_left))
    middle = functional.pad(zeros.float().repeat_interleave(repeats, 1) + shift, (0, 0, 0, rows_left))
    grid = torch.stack([steps, (_MIDDLE - middle) * steps], -1).transpose(0, 1).contiguous().to(torch.bfloat16)
    return Int4Kernel(rows, columns, bits, size, _to_kernel(filled.to(torch.int32)), grid)


def _to_kernel(codes: Tensor) -> Tensor:
    """Put codes, int32 [rows, columns], into the order of the device's kernel."""
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
    """Return whether this torch has the kernel for a device, and it multiplies rightly there."""
    try:
        codes = torch.arange(_ROWS * 64, device=device).remainder(16).view(_ROWS, 64).int()
        grid = torch.ones(2, _ROWS, 2, dtype=torch.bfloat16, device=device)
        inputs = torch.eye(64, dtype=torch.bfloat16, device=device)[:3]
        made = _multiply(inputs, _to_kernel(codes), 32, grid)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.equal(made.float(), codes[:, :3].T.float() - _MIDDLE + 1)


@functools.cache
def _tile() -> tuple[int, tuple[int, ...]]:
    """Return the rows of the CPU's tile, and which of them each place of it holds: low halves first, then high ones.

    0 rows where the order is one that is not known here.
    """
    for rows in _CPU_BLOCKS:
        digits = []
        for shift in (0, 4):
            numbers = (torch.arange(2 * rows) >> shift & 15).int()[:, None].expand(-1, 4).contiguous()
            packed = _to_kernel(numbers).view(2, 4, rows // 2)
            digits.append(torch.cat([packed & 15, packed >> 4], -1).int())
        found = digits[0] + 16 * digits[1]
        order = found[0, 0].tolist()
        expected = torch.tensor(order)[None, None] + torch.tensor([0, rows])[:, None, None]
        if sorted(order) == list(range(rows)) and torch.equal(found & 255, expected.expand(2, 4, rows) & 255):
            return rows, tuple(order)
    return 0, ()


class Int4Kernel(nn.Module):
    """A weight in the order of torch's 4-bit kernel.

    Args:
        rows: output channels.
        columns: input channels.
        bits: of a code as it was stored; here it takes 4.
        group: weights that share a scale.
        codes: as the kernel wants them.
        grid: scales and shifts, bfloat16 [groups, out, 2].
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
        """Return how many parameters the bytes hold (see `stored_weights.held`)."""
        yield Held(self.codes, self.rows * self.columns, functools.partial(self.weight, torch.float32))
        yield Held(self.grid, 0)

    @property
    def name(self) -> str:
        """What runs, where, and from how many rows on the weight is unpacked instead."""
        widened = f", {self.bits} bits run as 4" if self.bits < _MOST_BITS else ""
        return f"torch int4pack ({self.codes.device.type}{widened}{self.choice.summary})"

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        flat = inputs.reshape(-1, self.columns)
        dense = {dtype: functools.partial(self._densely, dtype=dtype) for dtype in (inputs.dtype, torch.float32)}
        way = self.choice.of(flat, self._packed, dense if self.block else {})
        return way(flat).view(*inputs.shape[:-1], self.rows)

    def _packed(self, flat: Tensor) -> Tensor:
        filled = functional.pad(flat.to(torch.bfloat16), (0, self.wide - self.columns)).contiguous()
        return _multiply(filled, self.codes, self.group, self.grid)[:, : self.rows].to(flat.dtype)

    def _densely(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        weight, order = self._turned(dtype)
        made = flat.to(dtype) @ weight[: self.columns]
        return made.index_select(1, order)[:, : self.rows].to(flat.dtype)

    def _turned(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the weight [in, out] in the tiles' order of rows, and where each row of ours is in it."""
        groups, rows, _ = self.grid.shape
        order = _order(self.block, rows, str(self.codes.device))
        scale, shift = self.grid[:, order.argsort()].to(dtype).unbind(-1)
        tiles = self.codes.view(rows // self.block, self.wide, self.block // 2).transpose(0, 1)
        weight = torch.empty(self.wide, 2, rows // self.block, self.block // 2, dtype=dtype, device=self.codes.device)
        weight[:, 0].copy_((tiles & 15).view(torch.int8).sub_(_MIDDLE))
        weight[:, 1].copy_((tiles >> 4).view(torch.int8).sub_(_MIDDLE))
        grouped = weight.view(groups, self.group, rows)
        grouped.mul_(scale[:, None]).add_(shift[:, None])
        return weight.view(self.wide, rows), order

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        if self.block:
            turned, order = self._turned(dtype)
            return turned.index_select(1, order)[: self.columns, : self.rows].T.contiguous()
        one = torch.eye(self.wide, dtype=torch.bfloat16, device=self.codes.device)
        made = _multiply(one, self.codes, self.group, self.grid)
        return made[: self.columns, : self.rows].T.to(dtype).contiguous()

    def rows_at(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Return some rows of the weight: indices [n] to [n, in]."""
        _, order = _tile()
        places = torch.tensor(order).argsort()[indices % self.block]
        half = self.block // 2
        tiles = self.codes.view(-1, self.wide, half)
        held = tiles[indices // self.block, :, places % half]
        codes = torch.where(places[:, None] < half, held & 15, held >> 4).to(dtype)
        scale, shift = self.grid[:, indices].to(dtype).transpose(0, 1).unbind(-1)
        values = (codes.view(len(indices), -1, self.group) - _MIDDLE) * scale[..., None] + shift[..., None]
        return values.view(len(indices), -1)[:, : self.columns]


@functools.lru_cache(maxsize=64)
def _order(block: int, rows: int, device: str) -> Tensor:
    """Return where each row is in [halves, tiles, half a tile], flat."""
    _, order = _tile()
    places = torch.tensor(order).argsort()
    index = torch.arange(rows)
    place, half = places[index % block], block // 2
    return ((place // half) * (rows // block) + index // block) * half + place % half
