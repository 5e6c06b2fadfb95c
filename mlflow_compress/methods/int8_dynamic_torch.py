"""Linear layers in int8 by torch.ao.quantization, with one activation scale per call."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.compression.coverage import HELD_TWICE, note
from mlflow_compress.compression.dynamic_int8 import DynamicInt8
from mlflow_compress.compression.layers import replace
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.native_precision import widen
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Model


@dataclass
class Int8DynamicTorch(DynamicInt8):
    """torch.ao's dynamic int8 of every `nn.Linear`: one scale for all inputs of a call; `int8_dynamic` of version 0.1.

    Activations have one scale for all tokens of a call and use 7 of 8 bits, so one outlier channel costs all others
    their precision: language models lose much quality, which `int8_dynamic` avoids. Embeddings, convolutions and
    normalisation stay in float32, and so do the linear layers of torch's own encoder, whose fused kernel supports only
    float32. A head that is tied to an embedding gets its own weights. The kernels (FBGEMM, oneDNN) run only on the CPU.
    torch marks this API as deprecated.

    Source: torch.ao.quantization.quantize_dynamic; Jacob et al., arXiv 1712.05877.

    Attributes:
        per_channel: One scale per output channel instead of one per matrix.
    """

    revision: ClassVar[int] = 2

    per_channel: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Quantise in place.

        Raises:
            Unsupported: There is no linear layer.
        """
        import torch
        from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

        make_plain(model)
        widen(model, "torch.ao")
        linear = _linear(model.module)
        if not linear:
            raise Unsupported("there is no linear layer to quantise, and convolutions have no dynamic int8 kernels")
        note(model, [parameter for layer in linear for parameter in layer.parameters(recurse=False)])
        untied = sum(each.weight.numel() for each in linear if _is_tied(model.module, each))
        qconfig = per_channel_dynamic_qconfig if self.per_channel else default_dynamic_qconfig
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the deprecation, said above
            how = {torch.nn.Linear: qconfig}
            packed = {each: quantize_dynamic(torch.nn.ModuleList([each]), how, inplace=True)[0] for each in linear}
        model.module = replace(model.module, packed)
        if untied:
            model.cautions.append(HELD_TWICE.of(parameters=f"{untied:,}"))
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Put empty packed layers in the place of the linear ones, so that no float32 copy is ever held."""
        model.module = replace(model.module, {layer: _packed(layer) for layer in _linear(model.module)})
        return model


def _linear(module: Any) -> list[Any]:
    """Return all linear layers, without those whose weights torch's own encoder hands to a kernel of floats."""
    from torch import nn

    encoders = (each for each in module.modules() if isinstance(each, nn.TransformerEncoderLayer))
    fused = {child for encoder in encoders if _is_fused(encoder) for child in encoder.children()}
    return [each for each in module.modules() if type(each) is nn.Linear and each not in fused]


def _is_fused(encoder: Any) -> bool:
    attention = encoder.self_attn
    is_plain = attention.batch_first and attention._qkv_same_embed_dim and attention.num_heads % 2 == 0
    return bool(is_plain and encoder.activation_relu_or_gelu)


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
