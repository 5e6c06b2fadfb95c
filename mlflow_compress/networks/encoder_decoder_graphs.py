"""An encoder and a decoder as two graphs: the encoder's gives the keys and values that the decoder attends to.

`encoder`: from the encoder's own inputs to `cross_key_0`, `cross_value_0` and so on [batch, heads, source, width].

`decoder`: from `input_ids` [batch, tokens], those of the encoder's inputs that it heeds, the keys and values of all
tokens before, `past_key_0`, `past_value_0` and so on [batch, heads, past, width], and those of the encoder, to `logits`
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
        projections: a `torch.nn.ModuleList`: for each layer what makes the keys, then what makes the values.
        layers: how many there are.
        heads: in each.
        width: of a head.
    """

    projections: Any
    layers: int
    heads: int
    width: int

    @property
    def cache_shape(self) -> list[int]:
        """Layers, heads and width, as an exported decoder finds them in its config."""
        return [self.layers, self.heads, self.width]


def take_projections(attentions: Sequence[Any], key: str, value: str, heads: str) -> CrossAttention:
    """Take what makes keys and values out of a decoder's attentions to its encoder, where nothing is left of them.

    Args:
        attentions: of a twin of the model (see `export_graphs.twin`), one in each layer.
        key: the name of what makes the keys there.
        value: the name of what makes the values.
        heads: the name of the number of heads.

    Raises:
        AttributeError: they have nothing of these names.
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
        encoder: takes the inputs by name.
        cross: what makes keys and values of what it gives.
        inputs: example tensors by name, in order.
        axes: those of the inputs whose length may change.
        cross_axes: those of the keys and values.
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
        decode: takes an object with the parts, token ids, what is heeded, the past and the encoder's keys and values;
            gives logits and the new past.
        cross: how it attends to the encoder.
        encode: the encoder's graph.
        heeded: names of the encoder's inputs that it takes too.
        parts: the modules that it uses.
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
    given = {name: encode.inputs[name] for name in heeded}
    return graph(
        decode,
        {"input_ids": tokens, **given, **past, **crossed},
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
    return tuple(each.view(*each.shape[:2], heads, -1).transpose(1, 2).contiguous() for each in projected)
