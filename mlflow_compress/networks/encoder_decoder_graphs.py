"""An encoder and a decoder as two graphs: the encoder's returns the keys and values that the decoder attends to.

`encoder`: from the encoder's own inputs to `cross_key_0`, `cross_value_0` and so on [batch, heads, source, width].

`decoder`: from `input_ids` [batch, tokens], the encoder's inputs that it also uses, the keys and values of all earlier
tokens, `past_key_0`, `past_value_0` and so on [batch, heads, past, width], and those of the encoder, to `logits`
[batch, tokens, vocabulary] and `present_key_0`, `present_value_0` and so on [batch, heads, past + tokens, width]. The
first call has a past of length 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.networks.decoding import cache_names
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.sockets import Graph

_TOKENS, _PAST = 3, 5  # lengths of the examples


@dataclass(frozen=True)
class CrossAttention:
    """How a decoder attends to its encoder.

    Attributes:
        projections: a `torch.nn.ModuleList` with the projections of keys and of values for each layer, alternating.
        layers: number of layers.
        heads: number of heads in a layer.
        width: width of a head.
    """

    projections: Any
    layers: int
    heads: int
    width: int

    @property
    def cache_shape(self) -> list[int]:
        """Layers, heads and width, as an exported decoder reads them from its config."""
        return [self.layers, self.heads, self.width]


def take_projections(attentions: Sequence[Any], key: str, value: str, heads: str) -> CrossAttention:
    """Remove the projections of keys and values from a decoder's cross-attention layers, and return them.

    Args:
        attentions: the cross-attention layers of a twin of the model (see `export_graphs.twin`).
        key: name of the key projection.
        value: name of the value projection.
        heads: name of the attribute with the number of heads.

    Raises:
        AttributeError: the layers have no attributes with these names.
    """
    from torch import nn

    linears = [getattr(attention, name) for attention in attentions for name in (key, value)]
    for attention in attentions:
        setattr(attention, key, nn.Identity())
        setattr(attention, value, nn.Identity())
    count = int(getattr(attentions[0], heads))
    return CrossAttention(nn.ModuleList(linears), len(attentions), count, linears[0].out_features // count)


def encoder_graph(
    encoder: Any,
    cross: CrossAttention,
    inputs: Mapping[str, Any],
    axes: Mapping[str, Mapping[int, str]],
    cross_axes: Mapping[int, str],
) -> Graph:
    """Make the encoder's graph.

    Args:
        encoder: the encoder, which takes its inputs by name.
        cross: the projections of its output to keys and values.
        inputs: example tensors by name, in order.
        axes: dynamic axes of the inputs.
        cross_axes: dynamic axes of the keys and values.
    """
    names = cache_names("cross", cross.layers)
    forward = functools.partial(_encode, names=tuple(inputs), heads=cross.heads)
    dynamic = {**axes, **dict.fromkeys(names, cross_axes)}
    return graph(forward, inputs, names, dynamic, encoder=encoder, projections=cross.projections)


def decoder_graph(
    decode: Callable[..., tuple[Any, ...]],
    cross: CrossAttention,
    encode: Graph,
    heeded: Sequence[str] = (),
    **parts: Any,
) -> Graph:
    """Make the decoder's graph.

    Args:
        decode: takes an object with the parts, token ids, the shared inputs, the past and the encoder's keys and
            values; returns logits and the new past.
        cross: how the decoder attends to the encoder.
        encode: the encoder's graph.
        heeded: names of the encoder's inputs that the decoder takes too.
        parts: modules that the decoder uses.
    """
    import torch

    with torch.no_grad():
        crossed = dict(zip(encode.outputs, encode.module(*encode.inputs.values()), strict=True))
    example = next(iter(crossed.values()))
    batch = len(example)
    tokens = torch.zeros((batch, _TOKENS), dtype=torch.long, device=example.device)
    shape = (batch, cross.heads, _PAST, cross.width)
    past = {name: example.new_zeros(shape) for name in cache_names("past", cross.layers)}
    present = cache_names("present", cross.layers)
    by_token = {0: "batch", 1: "tokens"}
    shared = {name: encode.inputs[name] for name in heeded}
    return graph(
        decode,
        {"input_ids": tokens, **shared, **past, **crossed},
        ["logits", *present],
        {
            "input_ids": by_token,
            **{name: encode.dynamic[name] for name in (*heeded, *crossed)},
            **{name: {0: "batch", 2: "past"} for name in past},
            "logits": by_token,
            **{name: {0: "batch", 2: "present"} for name in present},
        },
        **parts,
    )


def _encode(parts: Any, *inputs: Any, names: Sequence[str], heads: int) -> tuple[Any, ...]:
    hidden = parts.encoder(**dict(zip(names, inputs, strict=True))).last_hidden_state
    projected = [project(hidden) for project in parts.projections]
    return tuple(states.view(*states.shape[:2], heads, -1).transpose(1, 2).contiguous() for states in projected)
