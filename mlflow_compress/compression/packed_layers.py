"""Layers with weights in few bits, and the replacement of plain layers by them."""

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
    """A linear layer that unpacks its weight at every call, until `use_kernel` repacks it for a kernel.

    Args:
        packed: Weight [out, in].
        bias: Bias [out] or None.
        input_scale: Factors of the input channels [in] or None. `use_kernel` drops factors of 1, which files contain if
            the scale was folded into another layer.
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
            product: Tensor = kernel(inputs)
            return product if self.bias is None else product + self.bias
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
        """Set the input scale to 1 after it was folded elsewhere; the tensor stays in files."""
        assert self.input_scale is not None
        self.input_scale.fill_(1)

    def divide(self, scale: Tensor) -> None:
        """Divide the outputs by a scale [out], in the precision of the weights' scales."""
        self.packed.scales = (self.packed.scales.float() / scale[:, None]).to(self.packed.scales.dtype)
        if self.bias is not None:
            self.bias.data = self.bias.data / scale.to(self.bias.dtype)

    @property
    def kernel_name(self) -> str:
        """Name of the kernel; empty if the weight is unpacked at each call."""
        return "" if self.packed.kernel is None else self.packed.kernel.name

    @property
    def packed_bits(self) -> int:
        """Bits per weight as stored."""
        return self.packed.bits

    @property
    def weight(self) -> Tensor:
        """The unpacked weight, for modules that read it instead of calling the layer."""
        weight: Tensor = self.packed(torch.float32 if self.bias is None else self.bias.dtype)
        return weight if self.input_scale is None else weight * self.input_scale.to(weight.dtype)


class PackedConvolution(nn.Module):
    """A convolution that unpacks its weight at every call."""

    def __init__(self, packed: Packed, convolution: Any) -> None:
        super().__init__()
        self.packed, self.convolution = packed, convolution
        convolution.weight = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the convolution's outputs."""
        weight = self.packed(inputs.dtype)
        return self.convolution._conv_forward(inputs, weight, self.convolution.bias)  # type: ignore[no-any-return]

    @property
    def weight(self) -> Tensor:
        """The unpacked weight, for modules that read its type (transformers' patch embeddings)."""
        weight: Tensor = self.packed(torch.float32 if self.convolution.bias is None else self.convolution.bias.dtype)
        return weight

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the convolution, such as its stride or padding."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("convolution"), name)


class PackedEmbedding(nn.Module):
    """An embedding that unpacks only the rows that are looked up."""

    def __init__(self, packed: Packed, like: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = packed.shape
        self.packed = packed
        packed.is_looked_up = True
        self.like: Tensor
        self.register_buffer("like", like.new_empty(0))  # stores the output type, in the file too

    def forward(self, indices: Tensor) -> Tensor:
        """Return [..., embedding_dim] for [...]."""
        return self.packed.rows_at(indices, self.like.dtype)

    @property
    def weight(self) -> Tensor:
        """The unpacked table, for modules that read it instead of calling the layer."""
        table: Tensor = self.packed(self.like.dtype)
        return table


def pack_layers(
    module: nn.Module, bits: int, group_size: int, kinds: Iterable[type], embeddings: bool, filled: bool
) -> tuple[Any, int]:
    """Replace the layers of some kinds whose packed weights take less than 16 bits each.

    Args:
        module: Module that holds the layers.
        bits: Bits per code, 1 to 8.
        group_size: Weights that share a scale and a zero point.
        kinds: Kinds of layers: `Linear` and convolutions.
        embeddings: Whether to pack embeddings too, with a head tied to one, and an untied head if its kind is in
            `kinds`. Tied layers share their packed weight.
        filled: Whether to round the current weights; otherwise the packed ones stay empty until they are loaded.

    Returns:
        The module or its replacement, and the number of replaced layers.
    """
    plain, tied = set(kinds), {nn.Embedding, nn.Linear}
    groups, replaced = sharing(module)[::-1], 0
    while groups:  # free each weight before packing the next, so that not all weights are held twice
        layers = groups.pop()
        types = {type(layer) for layer in layers}
        is_selected = types <= plain and (embeddings or head_of(module) not in layers)
        is_selected |= embeddings and nn.Embedding in types and types <= tied
        if is_selected and all(getattr(layer, "max_norm", None) is None for layer in layers):
            packed = Packed(layers[0].weight.shape, bits, group_size)
            fills_bytes = packed.columns * bits % 8 == 0
            if packed.is_worth_it and (fills_bytes or nn.Embedding not in types):
                if filled:
                    packed = Packed.of(layers[0].weight, bits, group_size)
                module = replace(module, {layer: _layer_of(packed, layer) for layer in layers})
                replaced += len(layers)
    return module, replaced


def packed_weights(module: nn.Module) -> int:
    """Count the weights of a module's packed layers, tied ones once."""
    return sum(weight.shape.numel() for weight in module.modules() if isinstance(weight, Packed))


def _layer_of(packed: Packed, layer: Any) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        return PackedEmbedding(packed, layer.weight)
    return PackedLinear(packed, layer.bias) if isinstance(layer, nn.Linear) else PackedConvolution(packed, layer)


def packable(module: nn.Module, bits: int, group_size: int) -> list[Any]:
    """Return the linear layers whose packed weights take less than 16 bits each, without a language model's head."""
    return [layer for layer in linear(module) if Packed(layer.weight.shape, bits, group_size).is_worth_it]


def leave_empty(module: nn.Module, bits: int, group_size: int, scaled: bool = False) -> Any:
    """Replace all packable layers by empty packed ones.

    Args:
        module: Module that holds the layers.
        bits: Bits per code.
        group_size: Weights that share a scale and a zero point.
        scaled: Whether the layers scale their inputs.

    Returns:
        The module or its replacement.
    """
    replacements = {}
    for layer in packable(module, bits, group_size):
        scale = layer.weight.new_empty(layer.in_features, device="meta") if scaled else None
        replacements[layer] = PackedLinear(Packed(layer.weight.shape, bits, group_size), layer.bias, scale)
    return replace(module, replacements)
