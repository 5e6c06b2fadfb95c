"""Groups of weights of one row: their size, and the grid of values of each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Model

OTHER_GROUPS = CautionKind(
    "other_groups",
    short={
        "en": "some layers have a different group size than requested",
        "ru": "у части слоёв другой размер группы, чем задан",
    },
    message={
        "en": "group_size={asked} does not divide the inputs of {count} layers: their groups are {groups}",
        "ru": "group_size={asked} не делит число входов у {count} слоёв: там группы {groups}",
    },
    advice={
        "en": "Smaller groups take more bytes for scales. Compare it with methods of the same group size.",
        "ru": "Меньшие группы тратят больше байтов на масштабы. Сравнивайте с методами с тем же размером группы.",
    },
)
_KERNEL_SIZES = (256, 128, 64, 32)  # supported by the kernels of this and other programs
_LEAST_GROUP = 8
_MOST_NAMED = 3  # kinds of layers in a caution


def fitting(group_size: int, columns: int) -> int:
    """Return the group size of a row: all its groups have equal length, as every kernel and format requires.

    This is the requested size if it divides the row or the row is not longer. Otherwise it is the largest smaller size
    that divides the row, preferably one that kernels support, or the whole row if only tiny groups divide it.

    Args:
        group_size: Requested size.
        columns: Weights per row.
    """
    if columns <= group_size or columns % group_size == 0:
        return min(group_size, columns)
    short_last = -(-columns // group_size)  # number of groups in files of earlier versions, which it identifies
    sizes = [size for size in (*_KERNEL_SIZES, *range(group_size, _LEAST_GROUP - 1, -1)) if size < group_size]
    return next((size for size in sizes if columns % size == 0 and columns // size != short_last), columns)


def caution_other_groups(model: Model, requested: int, all_columns: Iterable[int]) -> None:
    """Add a caution if a layer's groups have another size than requested.

    Args:
        model: Compressed model.
        requested: Group size in the method's options.
        all_columns: Weights per row of each layer; a row that is one group counts as requested.
    """
    sizes = [(fitting(requested, columns), columns) for columns in all_columns]
    other_shapes = Counter((size, columns) for size, columns in sizes if size != min(requested, columns))
    if other_shapes:
        common = [pair for pair, _ in other_shapes.most_common(_MOST_NAMED)]
        ellipsis = ", ..." if len(other_shapes) > _MOST_NAMED else ""
        groups = {
            language: ", ".join(f"{size} {word} {columns}" for size, columns in common) + ellipsis
            for language, word in {"en": "of", "ru": "из"}.items()
        }
        model.cautions.append(OTHER_GROUPS.of(asked=requested, count=other_shapes.total(), groups=groups))


class Grid(NamedTuple):
    """The values that weights of a group can have.

    Attributes:
        bits: Bits per code.
        scales: Steps between values, bfloat16 [..., 1].
        zeros: Codes of the weight 0, uint8 [..., 1].
    """

    bits: int
    scales: Tensor
    zeros: Tensor

    @classmethod
    def over(cls, weights: Tensor, bits: int) -> Grid:
        """Return the grid from the smallest to the largest weight of each group [..., weights], including 0."""
        max_code = 2**bits - 1
        low, high = weights.amin(-1, keepdim=True).clamp(max=0), weights.amax(-1, keepdim=True).clamp(min=0)
        scales = ((high - low).float() / max_code).clamp(min=torch.finfo(torch.bfloat16).tiny).to(torch.bfloat16)
        return cls(bits, scales, (-low / scales).round().clamp(0, max_code).to(torch.uint8))

    def encode(self, weights: Tensor) -> Tensor:
        """Return the codes of the nearest values, uint8."""
        return ((weights / self.scales).round() + self.zeros).clamp(0, 2**self.bits - 1).to(torch.uint8)

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights of codes."""
        return codes.to(dtype).sub_(self.zeros).mul_(self.scales.to(dtype))


def grouped(rows: Tensor, group_size: int) -> Tensor:
    """Split rows [rows, columns] into groups [rows, groups, group_size], the last one padded with 0.

    Only weights saved by earlier versions have a shorter last group: see `fitting`.
    """
    if missing := -rows.shape[1] % group_size:
        rows = functional.pad(rows, (0, missing))
    return rows.reshape(len(rows), -1, group_size)


def nearest(rows: Tensor, bits: int, group_size: int) -> Tensor:
    """Return the rows [rows, columns] with each weight rounded to the nearest value of its group's grid."""
    groups = grouped(rows, fitting(group_size, rows.shape[1]))
    grid = Grid.over(groups, bits)
    return grid.decode(grid.encode(groups)).view(rows.shape)
