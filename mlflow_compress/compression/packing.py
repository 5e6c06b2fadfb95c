"""Weights in few bits: integers packed into bytes, in groups that share a scale and a zero point, and layers of them.

A weight is `(code - zero) * scale`; codes and zero points are integers of 0 to 2^bits - 1. A group is so many weights
of one row, and a row is all weights of one output channel. This module defines torch modules, so it is imported where
torch is: inside verbs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_compress.compression.few_bit_kernels import kernel_for
from mlflow_compress.compression.layers import head_of, linear, replace, sharing
from mlflow_compress.networks.stored_weights import Held

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WORTH_BITS = 16  # of a weight with its share of scales and zero points, from which on packing saves nothing


def pack(values: Tensor, bits: int) -> Tensor:
    """Pack integers of 0 to 2^bits - 1, of any shape, into bytes, the first in the lowest bits.

    Args:
        values: integers.
        bits: 1 to 8.

    Returns:
        uint8 [ceil(count * bits / 8)].

    Raises:
        ValueError: a value needs more bits.
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
    """Return the `count` integers that `pack` packed: uint8 [count]."""
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
    """Return the smallest integer type that holds `size` bytes and leaves its sign alone."""
    if size == 1:
        return torch.uint8
    return torch.int32 if size < 4 else torch.int64


class Grid(NamedTuple):
    """The values that groups of weights can take.

    Attributes:
        bits: of a code.
        scales: steps between values: bfloat16 [..., 1].
        zeros: codes of the weight 0: uint8 [..., 1].
    """

    bits: int
    scales: Tensor
    zeros: Tensor

    @classmethod
    def over(cls, weights: Tensor, bits: int) -> Grid:
        """Span the grid from the smallest to the largest weight of each group [..., weights], and over 0."""
        most = 2**bits - 1
        low, high = weights.amin(-1, keepdim=True).clamp(max=0), weights.amax(-1, keepdim=True).clamp(min=0)
        scales = ((high - low).float() / most).clamp(min=torch.finfo(torch.bfloat16).tiny).to(torch.bfloat16)
        return cls(bits, scales, (-low / scales).round().clamp(0, most).to(torch.uint8))

    def encode(self, weights: Tensor) -> Tensor:
        """Round weights to the nearest value: codes, uint8."""
        return ((weights / self.scales).round() + self.zeros).clamp(0, 2**self.bits - 1).to(torch.uint8)

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights that codes stand for."""
        return codes.to(dtype).sub_(self.zeros).mul_(self.scales.to(dtype))


def grouped(rows: Tensor, group_size: int) -> Tensor:
    """Split rows [rows, columns] into groups [rows, groups, group_size], the last one filled with 0.

    A row shorter than a group is one group of its own length.
    """
    size = min(group_size, rows.shape[1])
    if rows.shape[1] % size:
        rows = functional.pad(rows, (0, -rows.shape[1] % size))
    return rows.reshape(len(rows), -1, size)


def nearest(rows: Tensor, bits: int, group_size: int) -> Tensor:
    """Return the rows [rows, columns] with each weight rounded to the nearest value of its group's grid."""
    groups = grouped(rows, group_size)
    grid = Grid.over(groups, bits)
    return grid.decode(grid.encode(groups)).view(len(rows), -1)[:, : rows.shape[1]]


class Packed(nn.Module):
    """A weight in few bits. It has no memory until it is filled: by `fill`, or from a file.

    Args:
        shape: of the weight, output channels first.
        bits: of a code, 1 to 8.
        group_size: weights that share a scale and a zero point; a row's last group may be shorter.
    """

    def __init__(self, shape: Iterable[int], bits: int, group_size: int) -> None:
        super().__init__()
        self.shape, self.bits = torch.Size(shape), bits
        self.rows, self.columns = self.shape[0], prod(self.shape[1:])
        self.group_size = min(group_size, self.columns)
        groups = -(-self.columns // self.group_size)
        empty = torch.empty(-(-self.shape.numel() * bits // 8), dtype=torch.uint8, device="meta")
        self.codes = nn.Parameter(empty, requires_grad=False)
        # no parameters: families take the first floating-point parameter's type for the model's
        self.scales: Tensor
        self.zeros: Tensor
        self.register_buffer("scales", torch.empty(self.rows, groups, dtype=torch.bfloat16, device="meta"))
        self.register_buffer("zeros", torch.empty(self.rows, groups, dtype=torch.uint8, device="meta"))
        self.kernel: Any = None
        self.is_looked_up = False  # by an embedding: then single rows must be read from the kernel's order too

    def repack(self) -> None:
        """Repack the weight for a kernel of its device, where there is one; the portable codes are dropped then."""
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
        groups = grouped(weight.detach().float().reshape(packed.rows, -1), group_size)
        grid = Grid.over(groups, bits)
        return packed.fill(grid.encode(groups).view(packed.rows, -1)[:, : packed.columns], grid.scales, grid.zeros)

    def fill(self, codes: Tensor, scales: Tensor, zeros: Tensor) -> Packed:
        """Take codes [rows, columns], and scales and zero points [rows, groups], whatever axes follow."""
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
        """Return some rows of the weight: indices [...] to weights [..., columns]. A row must fill whole bytes."""
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
        """Return how many parameters the bytes hold (see `stored_weights.held`)."""
        if self.kernel is not None:
            yield from self.kernel.held_weights()
            return
        yield Held(self.codes.data, self.shape.numel(), self)
        yield Held(self.scales, 0)
        yield Held(self.zeros, 0)

    @property
    def is_worth_it(self) -> bool:
        """Whether it is smaller than 16 bits a weight would be."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in (self.codes, self.scales, self.zeros))
        return size * 8 < _WORTH_BITS * self.shape.numel()


class PackedLinear(nn.Module):
    """A linear layer that unpacks its weight at every call, until `use_kernel` finds it a kernel.

    Args:
        packed: the weight [out, in].
        bias: [out] or None.
        input_scale: what the input's channels are multiplied by first: [in] or None.
    """

    def __init__(self, packed: Packed, bias: Tensor | None, input_scale: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = packed.shape
        self.packed = packed
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.input_scale: Tensor | None
        self.register_buffer("input_scale", input_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for [..., in]."""
        if self.input_scale is not None:
            inputs = inputs * self.input_scale.to(inputs.dtype)
        if (kernel := self.packed.kernel) is not None:
            made: Tensor = kernel(inputs)
            return made if self.bias is None else made + self.bias
        return functional.linear(inputs, self.packed(inputs.dtype), self.bias)

    def use_kernel(self) -> None:
        """Repack the weight for the kernel of its device (see `networks.kernels`)."""
        self.packed.repack()

    @property
    def kernel_name(self) -> str:
        """On what it runs; empty where the weight is unpacked at each call."""
        return "" if self.packed.kernel is None else self.packed.kernel.name

    @property
    def packed_bits(self) -> int:
        """Bits of a weight as it was stored."""
        return self.packed.bits

    @property
    def weight(self) -> Tensor:
        """The weight, unpacked, for modules that reach for it instead of calling the layer."""
        weight: Tensor = self.packed(torch.float32 if self.bias is None else self.bias.dtype)
        return weight if self.input_scale is None else weight * self.input_scale.to(weight.dtype)


class PackedConvolution(nn.Module):
    """A convolution that unpacks its weight at every call."""

    def __init__(self, packed: Packed, convolution: Any) -> None:
        super().__init__()
        self.packed, self.convolution = packed, convolution
        convolution.weight = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the convolution gives."""
        weight = self.packed(inputs.dtype)
        return self.convolution._conv_forward(inputs, weight, self.convolution.bias)  # type: ignore[no-any-return]

    @property
    def weight(self) -> Tensor:
        """The weight, unpacked, for modules that ask for its type (transformers' patch embeddings)."""
        weight: Tensor = self.packed(torch.float32 if self.convolution.bias is None else self.convolution.bias.dtype)
        return weight

    def __getattr__(self, name: str) -> Any:
        """Return what callers reach for in a convolution: its stride, its padding."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("convolution"), name)


class PackedEmbedding(nn.Module):
    """An embedding that unpacks the rows that are looked up."""

    def __init__(self, packed: Packed, like: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = packed.shape
        self.packed = packed
        packed.is_looked_up = True
        self.like: Tensor
        self.register_buffer("like", like.new_empty(0))  # keeps the type that it gives, in the file too

    def forward(self, indices: Tensor) -> Tensor:
        """Return [..., embedding_dim] for [...]."""
        return self.packed.rows_at(indices, self.like.dtype)

    @property
    def weight(self) -> Tensor:
        """The table, unpacked, for modules that reach for it instead of calling the layer."""
        table: Tensor = self.packed(self.like.dtype)
        return table


def pack_layers(
    module: nn.Module, bits: int, group_size: int, kinds: Iterable[type], embeddings: bool, filled: bool
) -> tuple[Any, int]:
    """Put packed layers in the place of all those of some kinds whose packed weights take less than 16 bits each.

    Args:
        module: what holds the layers.
        bits: of a code, 1 to 8.
        group_size: weights that share a scale and a zero point.
        kinds: `Linear` and convolutions.
        embeddings: whether to pack embeddings too, with the head that is tied to one, and an untied head if its kind is
            wanted. Tied layers share their packed weight.
        filled: whether to round the weights that are there, or to leave the packed ones to be filled.

    Returns:
        The module, or what replaces it, and the number of layers that were replaced.
    """
    plain, tied = set(kinds), {nn.Embedding, nn.Linear}
    groups, replaced = sharing(module)[::-1], 0
    while groups:  # each weight is let go before the next is packed, so that never all are held twice
        layers = groups.pop()
        types = {type(layer) for layer in layers}
        is_wanted = types <= plain and (embeddings or head_of(module) not in layers)
        is_wanted |= embeddings and nn.Embedding in types and types <= tied
        if is_wanted and all(getattr(layer, "max_norm", None) is None for layer in layers):
            packed = Packed(layers[0].weight.shape, bits, group_size)
            fills_bytes = packed.columns * bits % 8 == 0
            if packed.is_worth_it and (fills_bytes or nn.Embedding not in types):
                if filled:
                    packed = Packed.of(layers[0].weight, bits, group_size)
                module = replace(module, {layer: _layer_of(packed, layer) for layer in layers})
                replaced += len(layers)
    return module, replaced


def packed_weights(module: nn.Module) -> int:
    """Count the weights that a module's packed layers hold, those of tied ones once."""
    return sum(each.shape.numel() for each in module.modules() if isinstance(each, Packed))


def _layer_of(packed: Packed, layer: Any) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        return PackedEmbedding(packed, layer.weight)
    return PackedLinear(packed, layer.bias) if isinstance(layer, nn.Linear) else PackedConvolution(packed, layer)


def packable(module: nn.Module, bits: int, group_size: int) -> list[Any]:
    """Return the linear layers whose packed weights take less than 16 bits each, without a language model's head."""
    return [layer for layer in linear(module) if Packed(layer.weight.shape, bits, group_size).is_worth_it]


def leave_empty(module: nn.Module, bits: int, group_size: int, scaled: bool = False) -> Any:
    """Put packed layers to be filled in the place of all that are packable.

    Args:
        module: what holds the layers.
        bits: of a code.
        group_size: weights that share a scale and a zero point.
        scaled: whether the layers scale their inputs.

    Returns:
        The module, or what replaces it.
    """
    replacements = {}
    for layer in packable(module, bits, group_size):
        scale = layer.weight.new_empty(layer.in_features, device="meta") if scaled else None
        replacements[layer] = PackedLinear(Packed(layer.weight.shape, bits, group_size), layer.bias, scale)
    return replace(module, replacements)
