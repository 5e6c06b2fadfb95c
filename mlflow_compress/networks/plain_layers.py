"""Layers that methods would pass over: weights that are made at each call, linear layers that are written transposed.

A method that needs plain ones makes them so before it compresses; the model notes it, and is made so again when it is
built anew to be filled.
"""

from __future__ import annotations

import sys
from typing import Any

from mlflow_compress.networks import made_weights
from mlflow_compress.sockets import LayerSizes, Model

_MADE, _TURNED = "made weights", "transposed linear layers"  # as the note calls them
_WHOLE = ""  # the module's name for itself


def make_plain(model: Model, turn: bool = True) -> None:
    """Make plain, in place, what is not, and note it.

    Args:
        model: the model.
        turn: whether transformers' `Conv1D`, as GPT-2 has them, become `nn.Linear`.
    """
    done = [_MADE] if made_weights.fold(model.module) else []
    if turn and (layers := transposed(model.module)):
        model.module = _turned(model.module, layers)
        done.append(_TURNED)
    noted = [*noted_in(model), *(each for each in done if each not in noted_in(model))]
    if not done:
        return
    if model.is_transformer:
        model.config.plain_layers = noted
    else:
        as_built: LayerSizes = {"numbers": {}, "parameters": {}, "buffers": {}}
        model.structure = {**model.structure, _WHOLE: {**as_built, **model.structure.get(_WHOLE, {}), "plain": noted}}


def make_plain_again(model: Model) -> None:
    """Make plain, in a model that was built anew, what its note says."""
    noted = noted_in(model)
    if _MADE in noted:
        made_weights.fold(model.module)
    if _TURNED in noted:
        model.module = _turned(model.module, transposed(model.module))


def noted_in(model: Model) -> list[str]:
    """Return what was made plain in a model."""
    if model.is_transformer:
        return list(getattr(model.config, "plain_layers", []))
    return list(model.structure.get(_WHOLE, {}).get("plain", []))


def transposed(module: Any) -> list[Any]:
    """Return the `Conv1D` layers of transformers, whose weight is [in, out]."""
    if "transformers.pytorch_utils" not in sys.modules:  # then nobody has made any
        return []
    from transformers.pytorch_utils import Conv1D

    return [layer for layer in module.modules() if type(layer) is Conv1D]


def _turned(module: Any, layers: list[Any]) -> Any:
    """Put linear layers in the place of transposed ones, wherever these are held.

    Returns:
        The module, or the linear layer where it was itself a transposed one.
    """
    turned = {layer: _linear(layer) for layer in layers}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child in turned:
                setattr(parent, name, turned[child])
    return turned.get(module, module)


def _linear(layer: Any) -> Any:
    from torch import nn

    rows, columns = layer.weight.shape
    linear = nn.Linear(rows, columns, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
    linear.bias = layer.bias
    linear.nf = layer.nf  # as callers may ask for it
    return linear.train(layer.training)
