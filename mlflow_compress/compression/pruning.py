"""Which layers hold learned weights, what flows through them, and patterns of weights to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlflow_compress.compression.calibration import caution_few_tokens, require_data, samples_for
from mlflow_compress.compression.layers import head_of, sharing
from mlflow_compress.networks.fused_layers import unfused
from mlflow_compress.sockets import Family, Model


def learned(module: Any, *kinds: Any) -> list[Any]:
    """Return the layers of the given classes whose weights are learned, the first of those that share one.

    Weights that are all integers are a function written as a layer (a detector's expectation over its bins), and are
    left out.

    Args:
        module: the model.
        kinds: classes of layers; linear layers and convolutions when there are none.
    """
    import torch

    kinds = kinds or (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    found = (next((layer for layer in each if isinstance(layer, kinds)), None) for each in sharing(module))
    return [layer for layer in found if layer is not None and _is_learned(layer.weight)]


def inner(module: Any) -> list[Any]:
    """Return learned linear layers and convolutions, without a language model's head and what else shares its weight.

    A head's outputs are words and an embedding's rows too: they are most sensitive, so it is usual to leave them.
    """
    tied = {layer for each in sharing(module) if len(each) > 1 for layer in each}
    return [layer for layer in learned(module) if layer not in tied and layer is not head_of(module)]


def observe(
    model: Model, family: Family, layers: Iterable[Any], samples: int | None, see: Callable[[Any, Any, Any], None]
) -> None:
    """Run calibration samples through the model; each time a layer is called, show it, its inputs and its output.

    Raises:
        Unsupported: there are no data for trained weights.
    """
    import torch

    require_data(model, family)
    batches = family.calibration(model, samples_for(model, family, samples), seed=0)
    caution_few_tokens(model, batches)

    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        with torch.no_grad(), unfused():
            for batch in batches:
                family.forward(model, batch)
    finally:
        for hook in hooks:
            hook.remove()


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
