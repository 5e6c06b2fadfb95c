"""Layers of a module: finding those whose weight is to be replaced, and putting others in their place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def sharing(module: Any) -> list[list[Any]]:
    """Give, for each parameter that layers hold as `weight`, the layers that share it: one, or all that are tied.

    A parameter that is held under another name too is left out.
    """
    holders = defaultdict(list)
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            holders[parameter].append((layer, name))
    return [[layer for layer, _ in each] for each in holders.values() if all(name == "weight" for _, name in each)]


def head_of(module: Any) -> Any:
    """Return the layer that turns a language model's states into tokens, or None."""
    return module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None


def linear(module: Any) -> list[Any]:
    """Return the plain linear layers that share their weights with no other, without a language model's head.

    The head is most sensitive, so it is usual to leave it as it is.
    """
    import torch

    head = head_of(module)
    return [layer for layer in _alone(module, {torch.nn.Linear}) if layer is not head]


def called(module: Any, *kinds: type, head: bool = False) -> list[Any]:
    """Return the layers of exactly these kinds that share their weights with no other, and are called to be used.

    Left out are those whose weights torch's own transformer layers hand to a fused kernel instead of calling them, and,
    unless `head` is set, a language model's head.
    """
    import torch

    encoders = (each for each in module.modules() if isinstance(each, torch.nn.TransformerEncoderLayer))
    fused = {child for encoder in encoders for child in encoder.children()}
    left_out = fused if head else fused | {head_of(module)}
    return [layer for layer in _alone(module, set(kinds)) if layer not in left_out]


def _alone(module: Any, kinds: set[type]) -> list[Any]:
    return [each[0] for each in sharing(module) if len(each) == 1 and type(each[0]) in kinds]


def count(module: Any, *kinds: type) -> int:
    """Count the layers of exactly these kinds."""
    return sum(type(layer) in kinds for layer in module.modules())


def replace(module: Any, replacements: Mapping[Any, Any]) -> Any:
    """Put other layers in the place of some, wherever they are held.

    Returns:
        The module, or what replaces it.
    """
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(module, module)
