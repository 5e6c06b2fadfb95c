"""Layers with learned weights, their inputs and outputs on calibration data, and masks of weights to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlflow_compress.compression.calibration import caution_few_tokens, require_data, samples_for
from mlflow_compress.compression.layers import head_of, sharing
from mlflow_compress.networks.fused_layers import unfused
from mlflow_compress.sockets import Family, Model


def learned(module: Any, *kinds: Any) -> list[Any]:
    """Return the layers of the given classes whose weights are learned, one per shared weight.

    All-integer weights are left out: they are a function written as a layer (a detector's expectation over its bins).

    Args:
        module: Model.
        kinds: Classes of layers; linear layers and convolutions if empty.
    """
    import torch

    kinds = kinds or (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    layers = (next((layer for layer in group if isinstance(layer, kinds)), None) for group in sharing(module))
    return [layer for layer in layers if layer is not None and _is_learned(layer.weight)]


def inner(module: Any) -> list[Any]:
    """Return learned linear layers and convolutions, without a language model's head and layers that share weights.

    The head and the embedding are most sensitive, so they usually stay unchanged.
    """
    tied = {layer for group in sharing(module) if len(group) > 1 for layer in group}
    return [layer for layer in learned(module) if layer not in tied and layer is not head_of(module)]


def observe(
    model: Model, family: Family, layers: Iterable[Any], samples: int | None, see: Callable[[Any, Any, Any], None]
) -> None:
    """Run calibration samples through the model; pass each call of a layer to `see(layer, inputs, output)`.

    Raises:
        Unsupported: There is no data for trained weights.
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
    """View a weight [outputs, inputs, ...] as [outputs, ..., inputs], with the inputs of a product together."""
    return weight.movedim(1, -1)


def largest(scores: Any, keep: int, of: int) -> Any:
    """Return a mask of the `keep` largest of each `of` consecutive scores; `of` must divide the last axis."""
    import torch

    groups = scores.unflatten(-1, (-1, of))
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(-1, groups.topk(keep, -1).indices, True).flatten(-2)


def _is_learned(weight: Any) -> bool:
    return bool(weight.is_floating_point() and (weight != weight.round()).any())
