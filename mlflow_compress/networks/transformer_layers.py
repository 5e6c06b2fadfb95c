"""Stacks of equal layers in transformers models: finds them, drops layers, and observes their hidden states.

A stack is the list of layers of an encoder or a decoder. Changes are written into the model's config, from which the
family builds the model again: the number of layers is in transformers' own fields.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Model

# config fields with the number of layers, for each part; the second ones are T5's
_COUNTS = {
    "": ("num_hidden_layers",),
    "encoder": ("encoder_layers", "num_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}


@dataclass(frozen=True)
class Stack:
    """A list of equal layers.

    Attributes:
        name: its name in the module: `model.encoder.layers`.
        part: `encoder` or `decoder` in a model with both, else empty.
        count: the config field with the number of layers.
    """

    name: str
    part: str
    count: str

    def layers(self, model: Model) -> Any:
        """Return the layers as a `torch.nn.ModuleList`."""
        return model.module.get_submodule(self.name)


def stacks(model: Model) -> list[Stack]:
    """Find the stacks of a transformers model.

    Raises:
        Unsupported: it is not a transformers model, or has no stack whose length is in its config.
    """
    from torch import nn

    config = model.config
    if not model.is_transformer:
        raise Unsupported(
            "this is not a transformers model: it has no stack of equal layers to shrink. Remove channels instead "
            "(prune_structured:what=channels), or distill it with student() in your own file"
        )
    results: list[Stack] = []
    for name, layer in model.module.named_modules():
        is_inside = any(name.startswith(f"{stack.name}.") for stack in results)
        if isinstance(layer, nn.ModuleList) and not is_inside:
            part = _part(config, name)
            count = next((count for count in _COUNTS[part] if getattr(config, count, None) == len(layer)), None)
            if count is not None:
                results.append(Stack(name, part, count))
    if not results:
        raise Unsupported(
            f"a {type(model.module).__name__} has no stack of equal layers whose number is in its config. For a "
            "convolutional network use source=torchvision:NAME or timm:NAME, where prune_structured removes channels, "
            "or your own file, where distill trains what student() builds"
        )
    return results


def _part(config: Any, name: str) -> str:
    if not config.is_encoder_decoder:
        return ""
    return next((part for part in ("encoder", "decoder") if part in name.split(".")), "")


def spaced(count: int, kept: int) -> list[int]:
    """Return `kept` of `count` indices, evenly spaced, with the first and the last.

    For 6 of 12 layers, they are those that DistilBERT copied from BERT: 0, 2, 4, 7, 9, 11.
    """
    return [round(index * (count - 1) / max(kept - 1, 1)) for index in range(kept)]


def share(count: int, amount: float) -> int:
    """Return how many of `count` are left if about this share is removed.

    The result is at least one; of two equally near numbers it is the greater one.
    """
    return max(1, count - math.ceil(amount * count - 0.5))


def thinned(model: Model, keep: float, part: str = "") -> Model:
    """Copy a model with a share of its layers, evenly spaced; the copy's parameters can be trained.

    Args:
        model: the original, which does not change.
        keep: share of the layers to keep in each stack.
        part: thin only the `encoder` or the `decoder`; empty: all stacks.

    Raises:
        Unsupported: no layer would be removed.
    """
    module, config = copy.deepcopy((model.module, model.config))
    thin = dataclasses.replace(model, module=module, config=config)
    dropped = 0
    for stack in stacks(thin):
        count = len(stack.layers(thin))
        left = share(count, 1 - keep)
        if stack.part.startswith(part) and left < count:
            keep_layers(thin, stack, spaced(count, left))
            dropped += count - left
    if not dropped:
        raise Unsupported(f"there are too few layers to keep a share of {keep:g}")
    thin.module.requires_grad_(True)
    return thin


def keep_layers(model: Model, stack: Stack, kept: Sequence[int]) -> None:
    """Keep only the layers of a stack with these indices, and update their numbers and the config."""
    from torch import nn

    layers = stack.layers(model)
    left = nn.ModuleList(layers[index] for index in kept)
    for index, layer in enumerate(left):
        for inner in layer.modules():
            if hasattr(inner, "layer_idx"):  # its place in the cache of keys and values
                inner.layer_idx = index  # type: ignore[assignment]  # modules hold plain numbers too
    _hand_over_bias(layers[0], left[0])
    parent, _, name = stack.name.rpartition(".")
    setattr(model.module.get_submodule(parent), name, left)
    for config in configs_of(model):
        for key, value in list(vars(config).items()):
            if (
                isinstance(value, list) and len(value) == len(layers) and "layer" in key
            ):  # `layer_types`: one for each layer
                setattr(config, key, [value[index] for index in kept])
        setattr(config, stack.count, len(left))
    forget_alignment(model, stack)


def _hand_over_bias(first: Any, second: Any) -> None:
    """Move the bias of relative positions, which T5's first layer holds for all layers, to the new first layer."""
    for old, new in zip(first.modules(), second.modules(), strict=False):
        if getattr(old, "has_relative_attention_bias", False):
            new.relative_attention_bias, new.has_relative_attention_bias = old.relative_attention_bias, True


def influence(hidden: Sequence[Any]) -> list[float]:
    """Return how much each layer of a stack changes its input: 1 minus the cosine between input and output.

    Source: Block Influence, Men et al., ShortGPT, arXiv 2403.03853, equation 1.

    Args:
        hidden: the hidden states before, between and after the layers, from `watched`.
    """
    from torch.nn.functional import cosine_similarity

    pairs = itertools.pairwise(hidden)
    return [1 - float(cosine_similarity(before, after, dim=-1).mean()) for before, after in pairs]


@contextlib.contextmanager
def watched(model: Model) -> Iterator[Mapping[str, list[Any]]]:
    """Record the hidden states while the model runs.

    Yields:
        For each stack's name, the input of its first layer and the output of each layer in the last forward pass:
        tensors [batch, tokens, width], one more than there are layers.
    """
    states_of: dict[str, list[Any]] = {}
    handles = []

    def before(states: list[Any], args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        states[:] = [args[0] if args else keywords["hidden_states"]]

    def after(states: list[Any], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    try:
        for stack in stacks(model):
            states = states_of.setdefault(stack.name, [])
            layers = stack.layers(model)
            first = layers[0].register_forward_pre_hook(
                lambda layer, args, keywords, states=states: before(states, args, keywords), with_kwargs=True
            )
            handles.append(first)
            handles += [
                layer.register_forward_hook(lambda layer, args, output, states=states: after(states, output))
                for layer in layers
            ]
        yield states_of
    finally:
        for handle in handles:
            handle.remove()


def forget_alignment(model: Model, stack: Stack) -> None:
    """Remove Whisper's alignment heads, which give time stamps of words: they name heads by layer and number."""
    settings: Any = getattr(model.module, "generation_config", None)  # a detector has none
    if stack.part == "decoder" and hasattr(settings, "alignment_heads"):
        settings.alignment_heads = None


def configs_of(model: Model) -> list[Any]:
    """Return every config object of the model, once."""
    from transformers import PreTrainedConfig

    inner = [getattr(layer, "config", None) for layer in model.module.modules()]
    unique = {id(config): config for config in (model.config, *inner) if isinstance(config, PreTrainedConfig)}
    return list(unique.values())
