"""Layers of a module: finding layers by their weights, and replacing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def sharing(module: Any) -> list[list[Any]]:
    """Return, for each parameter that layers hold as `weight`, the layers that share it.

    Parameters that are also held under another name are left out.
    """
    holders = defaultdict(list)
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            holders[parameter].append((layer, name))
    groups = holders.values()
    return [[layer for layer, _ in group] for group in groups if all(name == "weight" for _, name in group)]


def head_of(module: Any) -> Any:
    """Return the output layer of a language model, or None."""
    return module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None


def linear(module: Any) -> list[Any]:
    """Return the plain linear layers that do not share their weights, without a language model's head.

    The head is most sensitive, so it usually stays unchanged.
    """
    import torch

    head = head_of(module)
    return [layer for layer in _alone(module, {torch.nn.Linear}) if layer is not head]


def called(module: Any, *kinds: type, head: bool = False) -> list[Any]:
    """Return the layers of exactly these kinds that do not share their weights and run by being called.

    Left out are layers whose weights torch's own transformer layers pass to a fused kernel, and, unless `head` is set,
    a language model's head.
    """
    import torch

    encoders = (layer for layer in module.modules() if isinstance(layer, torch.nn.TransformerEncoderLayer))
    fused = {child for encoder in encoders for child in encoder.children()}
    left_out = fused if head else fused | {head_of(module)}
    return [layer for layer in _alone(module, set(kinds)) if layer not in left_out]


def _alone(module: Any, kinds: set[type]) -> list[Any]:
    return [group[0] for group in sharing(module) if len(group) == 1 and type(group[0]) in kinds]


def count(module: Any, *kinds: type) -> int:
    """Count the layers of exactly these kinds."""
    return sum(type(layer) in kinds for layer in module.modules())


def replace(module: Any, replacements: Mapping[Any, Any]) -> Any:
    """Replace layers wherever they are held.

    Returns:
        The module, or its replacement.
    """
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(module, module)
