"""Layers whose weights are held in few bits, and how they take the place of plain ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_compress.compression.layers import head_of, linear, replace, sharing
from mlflow_compress.compression.packing import Packed

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class PackedLinear(nn.Module):
    """A linear layer that unpacks its weight at every call, until `use_kernel` finds it a kernel.

    Args:
        packed: the weight [out, in].
        bias: [out] or None.
        input_scale: what the input's channels are multiplied by first: [in] or None. One of ones, which files have
            where the scale was put elsewhere, is dropped with `use_kernel`.
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
        if not self.scales_inputs:
            self.input_scale = None
        self.packed.repack()

    @property
    def scales_inputs(self) -> bool:
        """Whether inputs are scaled at each call."""
        return self.input_scale is not None and not bool((self.input_scale == 1).all())

    def scale_no_inputs(self) -> None:
        """Have the scale of inputs put elsewhere; what is left keeps its place in files."""
        assert self.input_scale is not None
        self.input_scale.fill_(1)

    def divide(self, scale: Tensor) -> None:
        """Divide the outputs by a scale [out], to the precision that the weights' scales are kept in."""
        self.packed.scales = (self.packed.scales.float() / scale[:, None]).to(self.packed.scales.dtype)
        if self.bias is not None:
            self.bias.data = self.bias.data / scale.to(self.bias.dtype)

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
