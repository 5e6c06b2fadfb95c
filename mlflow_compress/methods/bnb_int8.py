"""LLM.int8(): linear layers in int8, except the inputs' outlier channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.layers import called, count, replace
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, State


@dataclass
class BnbInt8(Method):
    """LLM.int8() of bitsandbytes: linear layers in int8, input channels with outliers in floating point.

    Weights have one scale per output channel, inputs one per token at each call. Embeddings, convolutions,
    normalisation, biases and a language model's head stay unchanged. Made for GPUs: its CPU kernels multiply in
    floating point unless the CPU has AVX-512. Inputs are rounded to float16 first.

    Source: Dettmers et al., LLM.int8(), arXiv 2208.07339; bitsandbytes.nn.Linear8bitLt.

    Attributes:
        threshold: Magnitude from which an input channel is an outlier; 0: no channel is.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    needs: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    extra: ClassVar[str] = "quantization"
    excludes: ClassVar[Mapping[str, str]] = {
        "yolo": "its detectors have no linear layer, and bitsandbytes does not support convolutions"
    }
    revision: ClassVar[int] = 2

    threshold: Annotated[float, Ge(0)] = 6.0

    def compress(self, model: Model, family: Family) -> Model:
        """Quantise in place.

        Raises:
            Unsupported: There is no linear layer, or one is float64.
        """
        import torch

        from mlflow_compress.compression.bnb import Linear8bit

        make_plain(model)
        layers, total = called(model.module, torch.nn.Linear), count(model.module, torch.nn.Linear)
        if not layers:
            raise Unsupported("there is no linear layer to quantise, and bitsandbytes does not support convolutions")
        if any(layer.weight.dtype == torch.float64 for layer in layers):
            raise Unsupported("bitsandbytes does not support float64 weights: call .float() on the model first")
        note(model, [layer.weight for layer in layers])
        model.module = replace(model.module, {layer: Linear8bit.of(layer, self.threshold) for layer in layers})
        model.facts["layers"] = f"{len(layers)} of {total} linear layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the layers by empty int8 ones, without a float32 copy in memory."""
        import torch

        from mlflow_compress.compression.bnb import Linear8bit

        layers = called(model.module, torch.nn.Linear)
        model.module = replace(model.module, {layer: Linear8bit(layer, self.threshold) for layer in layers})
        return model
