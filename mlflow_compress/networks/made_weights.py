"""Weights that a module computes before each call: weight and spectral norm, pruning masks, parametrisations."""

from __future__ import annotations

from typing import Any


def fold(module: Any) -> bool:
    """Replace the tensors that such weights are computed from by the weights. The module computes the same.

    Only PyTorch's own hooks and parametrisations are removed; a user's own hooks stay.

    Returns:
        Whether there were any.
    """
    from torch import nn
    from torch.nn.utils import parametrize

    if not isinstance(module, nn.Module):
        return False
    has_folded = False
    for layer in module.modules():
        for hook in list(layer._forward_pre_hooks.values()):
            has_folded |= _fold_hook(layer, hook)
        if parametrize.is_parametrized(layer):
            for name in list(vars(layer)["_modules"]["parametrizations"]):
                _fold_parametrisation(layer, name)
            has_folded = True
    if has_folded:
        module.requires_grad_(False)
    return has_folded


def _fold_parametrisation(layer: Any, name: str) -> None:
    """Leave the weight as a parameter if it is computed from parameters: PyTorch leaves a frozen one as a tensor."""
    from torch import nn
    from torch.nn.utils import parametrize

    originals = layer.parametrizations[name]._parameters
    parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    if originals and name not in layer._parameters:
        weight = layer.__dict__.pop(name, None)
        weight = layer._buffers.pop(name, weight)
        layer.register_parameter(name, nn.Parameter(weight.detach(), requires_grad=False))


def _fold_hook(layer: Any, hook: Any) -> bool:
    """Remove a hook that computes a weight, and keep the weight; return whether it was such a hook."""
    from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
    from torch.nn.utils.weight_norm import WeightNorm

    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(layer, hook._tensor_name)
    elif isinstance(hook, WeightNorm):
        remove_weight_norm(layer, hook.name)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(layer, hook.name)
        for key, on_loading in list(layer._load_state_dict_pre_hooks.items()):  # PyTorch does not remove wrapped ones
            if isinstance(getattr(on_loading, "hook", None), SpectralNormLoadStateDictPreHook):
                del layer._load_state_dict_pre_hooks[key]
    else:
        return False
    return True
