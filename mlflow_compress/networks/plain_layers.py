"""Layers that methods would miss: weights that are computed at each call, and transposed linear layers.

A method that needs plain layers converts them before it compresses. The model records this, so that the same layers are
converted when it is built again to be filled.
"""

from __future__ import annotations

import sys
from typing import Any

from mlflow_compress.networks import made_weights
from mlflow_compress.sockets import LayerSizes, Model

MADE, _TURNED = "made weights", "transposed linear layers"  # names in the record
_WHOLE = ""  # name of the module itself


def make_plain(model: Model, turn: bool = True) -> None:
    """Convert layers to plain ones, in place, and record it.

    Args:
        model: the model.
        turn: whether `Conv1D` layers of transformers, as in GPT-2, become `nn.Linear`.
    """
    changes = [MADE] if made_weights.fold(model.module) else []
    if turn and (layers := transposed(model.module)):
        model.module = _turned(model.module, layers)
        changes.append(_TURNED)
    noted = list(dict.fromkeys([*noted_in(model), *changes]))
    if not changes:
        return
    if model.is_transformer:
        model.config.plain_layers = noted
    else:
        as_built: LayerSizes = {"numbers": {}, "parameters": {}, "buffers": {}}
        model.structure = {**model.structure, _WHOLE: {**as_built, **model.structure.get(_WHOLE, {}), "plain": noted}}


def make_plain_again(model: Model) -> None:
    """Convert the recorded layers in a model that was built again."""
    noted = noted_in(model)
    if MADE in noted:
        made_weights.fold(model.module)
    if _TURNED in noted:
        model.module = _turned(model.module, transposed(model.module))


def noted_in(model: Model) -> list[str]:
    """Return the record of conversions in a model."""
    if model.is_transformer:
        return list(getattr(model.config, "plain_layers", []))
    return list(model.structure.get(_WHOLE, {}).get("plain", []))


def transposed(module: Any) -> list[Any]:
    """Return the `Conv1D` layers of transformers, whose weight is [in, out]."""
    kinds = transposed_types()
    return [layer for layer in module.modules() if type(layer) in kinds]


def transposed_types() -> tuple[type[Any], ...]:
    """Return `Conv1D` of transformers; nothing where it was not imported, because then there can be no such layer."""
    if "transformers.pytorch_utils" not in sys.modules:  # importing it takes a second
        return ()
    from transformers.pytorch_utils import Conv1D

    return (Conv1D,)


def _turned(module: Any, layers: list[Any]) -> Any:
    """Replace transposed layers by linear layers, wherever they are.

    Returns:
        The module, or the new linear layer if the module itself was a transposed one.
    """
    linear_layers = {layer: _linear(layer) for layer in layers}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child in linear_layers:
                setattr(parent, name, linear_layers[child])
    return linear_layers.get(module, module)


def _linear(layer: Any) -> Any:
    from torch import nn

    rows, columns = layer.weight.shape
    linear = nn.Linear(rows, columns, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
    linear.bias = layer.bias
    linear.nf = layer.nf  # callers may read it
    return linear.train(layer.training)
