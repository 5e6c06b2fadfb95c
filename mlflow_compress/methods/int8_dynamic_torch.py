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
        untied = sum(layer.weight.numel() for layer in linear if _is_tied(model.module, layer))
        qconfig = per_channel_dynamic_qconfig if self.per_channel else default_dynamic_qconfig
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the deprecation is documented above
            qconfigs = {torch.nn.Linear: qconfig}
            packed = {
                layer: quantize_dynamic(torch.nn.ModuleList([layer]), qconfigs, inplace=True)[0] for layer in linear
            }
        model.module = replace(model.module, packed)
        if untied:
            model.cautions.append(HELD_TWICE.of(parameters=f"{untied:,}"))
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the linear layers by empty packed ones, without a float32 copy in memory."""
        model.module = replace(model.module, {layer: _packed(layer) for layer in _linear(model.module)})
        return model


def _linear(module: Any) -> list[Any]:
    """Return all linear layers, except those whose weights torch's own encoder passes to a float kernel."""
    from torch import nn

    encoders = (layer for layer in module.modules() if isinstance(layer, nn.TransformerEncoderLayer))
    fused = {child for encoder in encoders if _is_fused(encoder) for child in encoder.children()}
    return [layer for layer in module.modules() if type(layer) is nn.Linear and layer not in fused]


def _is_fused(encoder: Any) -> bool:
    attention = encoder.self_attn
    is_plain = attention.batch_first and attention._qkv_same_embed_dim and attention.num_heads % 2 == 0
    return bool(is_plain and encoder.activation_relu_or_gelu)


def _is_tied(module: Any, layer: Any) -> bool:
    """Return whether a layer of another kind shares the weight, and keeps it when this layer gets its own."""
    import torch

    other_modules = (
        candidate for candidate in module.modules() if candidate is not layer and type(candidate) is not torch.nn.Linear
    )
    return any(getattr(candidate, "weight", None) is layer.weight for candidate in other_modules)


def _packed(linear: Any) -> Any:
    import torch
    from torch.ao.nn.quantized.dynamic import Linear

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Linear(linear.in_features, linear.out_features, linear.bias is not None, dtype=torch.qint8)
