"""Weights that a module makes of others before each call: weight and spectral norm, pruning masks, parametrisations."""

from __future__ import annotations

from typing import Any


def fold(module: Any) -> bool:
    """Make such weights parameters of their own, in place of what they are made of. The module computes the same.

    What makes them is PyTorch's own; hooks of a user's own stay.

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
    """Leave the weight as a parameter, where it is made of some: PyTorch leaves a frozen one as a plain tensor."""
    from torch import nn
    from torch.nn.utils import parametrize

    originals = layer.parametrizations[name]._parameters
    parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    if originals and name not in layer._parameters:
        made = layer.__dict__.pop(name, None)
        made = layer._buffers.pop(name, made)
        layer.register_parameter(name, nn.Parameter(made.detach(), requires_grad=False))


def _fold_hook(layer: Any, hook: Any) -> bool:
    """Remove a hook that makes a weight, and leave the weight; tell whether it was one."""
    from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
    from torch.nn.utils.weight_norm import WeightNorm

    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(layer, hook._tensor_name)
    elif isinstance(hook, WeightNorm):
        remove_weight_norm(layer, hook.name)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(layer, hook.name)
        for key, on_loading in list(layer._load_state_dict_pre_hooks.items()):  # PyTorch leaves it, being wrapped
            if isinstance(getattr(on_loading, "hook", None), SpectralNormLoadStateDictPreHook):
                del layer._load_state_dict_pre_hooks[key]
    else:
        return False
    return True
