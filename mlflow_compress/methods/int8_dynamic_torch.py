"""Linear layers in int8 by torch.ao.quantization, one activation scale for each call."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from mlflow_compress.compression.coverage import HELD_TWICE, note
from mlflow_compress.compression.dynamic_int8 import DynamicInt8
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Model


@dataclass
class Int8DynamicTorch(DynamicInt8):
    """torch.ao's dynamic int8 of every `nn.Linear`: one scale for all inputs of a call; `int8_dynamic` of version 0.1.

    Activations get one scale for all tokens of a call and 7 of 8 bits, so one outlier channel costs all others their
    precision: language models suffer badly from that, and `int8_dynamic` does not have it. Embeddings, convolutions and
    normalisation stay in float32. A head that is tied to an embedding gets weights of its own. The kernels (FBGEMM,
    oneDNN) run on the CPU only. torch marks this API as deprecated.

    Source: torch.ao.quantization.quantize_dynamic; Jacob et al., arXiv 1712.05877.

    Attributes:
        per_channel: one scale for each output channel rather than one for each matrix.
    """

    per_channel: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Quantise in place.

        Raises:
            Unsupported: there are no float32 linear layers.
        """
        import torch
        from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

        linear = [each for each in model.module.modules() if type(each) is torch.nn.Linear]
        if not linear:
            raise Unsupported("there is no linear layer to quantise, and convolutions have no dynamic int8 kernels")
        note(model, [parameter for layer in linear for parameter in layer.parameters(recurse=False)])
        untied = sum(each.weight.numel() for each in linear if _is_tied(model.module, each))
        qconfig = per_channel_dynamic_qconfig if self.per_channel else default_dynamic_qconfig
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the deprecation, said above
            model.module = quantize_dynamic(model.module, {torch.nn.Linear: qconfig}, inplace=True)
        if untied:
            model.cautions.append(HELD_TWICE.of(parameters=f"{untied:,}"))
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Put empty packed layers in the place of the linear ones, so that no float32 copy is ever held."""
        import torch

        for parent in list(model.module.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is torch.nn.Linear:
                    setattr(parent, name, _packed(child))
        return model


def _is_tied(module: Any, layer: Any) -> bool:
    """Tell whether a layer that is no linear one shares the weight, and keeps it when this one gets its own."""
    import torch

    holders = (each for each in module.modules() if each is not layer and type(each) is not torch.nn.Linear)
    return any(getattr(each, "weight", None) is layer.weight for each in holders)


def _packed(linear: Any) -> Any:
    import torch
    from torch.ao.nn.quantized.dynamic import Linear

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Linear(linear.in_features, linear.out_features, linear.bias is not None, dtype=torch.qint8)
