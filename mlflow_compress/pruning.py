"""Which layers hold learned weights, and what pruning them has in common."""

from __future__ import annotations

from collections import Counter
from typing import Any


def layers(module: Any, *kinds: Any, tied: bool = True) -> dict[str, Any]:
    """Give the layers of the given classes whose weights are learned, by name; one for each weight.

    Weights that are all integers are a function written as a layer (a detector's expectation over its bins), and are
    left out.

    Args:
        module: the model.
        kinds: classes of layers; linear layers and convolutions when there are none.
        tied: give layers that share their weight with another (a head tied to an embedding), too.
    """
    import torch
    from torch.nn.modules.conv import _ConvNd

    kinds = kinds or (torch.nn.Linear, _ConvNd)
    uses = Counter(id(weight) for layer in module.modules() for weight in layer._parameters.values())
    found: dict[int, tuple[str, Any]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, kinds) and _is_learned(layer.weight) and (tied or uses[id(layer.weight)] == 1):
            found.setdefault(id(layer.weight), (name, layer))
    return dict(found.values())


def by_input(weight: Any) -> Any:
    """View a weight [outputs, inputs, ...] as [outputs, ..., inputs]: what is multiplied and summed lies together."""
    return weight.movedim(1, -1)


def largest(scores: Any, keep: int, of: int) -> Any:
    """Mark the `keep` largest of each `of` consecutive scores along the last axis, which they divide: a mask."""
    import torch

    groups = scores.unflatten(-1, (-1, of))
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(-1, groups.topk(keep, -1).indices, True).flatten(-2)


def _is_learned(weight: Any) -> bool:
    return bool(weight.is_floating_point() and (weight != weight.round()).any())
