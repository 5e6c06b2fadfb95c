"""Weights rounded to 8 bits, without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mlflow_compress.compression.coverage import record, total
from mlflow_compress.compression.layers import called, count
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, Published, State

_BITS = 8
_ROW = 2**31  # no row of weights is longer, so each row is one group


@dataclass
class Int8WeightOnly(Method):
    """Weights of linear and convolution layers rounded to 8 bits; activations stay in floating point.

    Each output channel has its own scale. Linear layers use torchao. Convolutions, which torchao does not support, and
    packed embeddings, which torchao would unpack completely for each token, use this package's own layers.
    Normalisation and biases stay unchanged, and so do embeddings and a language model's head unless `embeddings` is
    set. After loading, linear layers run on torch's kernel for 8-bit weights with bfloat16 activations if the machine
    has it.

    Source: Jacob et al., arXiv 1712.05877, equation 1; torchao.quantization.Int8WeightOnlyConfig.

    Attributes:
        embeddings: Round embeddings and the head too; tied ones stay tied.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    needs: ClassVar[tuple[str, ...]] = ("torchao",)
    extra: ClassVar[str] = "quantization"
    revision: ClassVar[int] = 3

    embeddings: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Round the weights in place.

        Raises:
            Unsupported: There is no linear or convolution layer, or weights are float64.
        """
        import torch
        from torch import nn
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        from mlflow_compress.compression.packed_layers import CONVOLUTIONS, packed_weights

        make_plain(model)
        candidates, weights = count(model.module, nn.Linear, *CONVOLUTIONS, nn.Embedding), total(model.module)
        packed = self._pack(model, filled=True)
        layers = {layer for layer in called(model.module, nn.Linear, head=self.embeddings) if layer.weight.numel()}
        if any(layer.weight.dtype == torch.float64 for layer in layers):
            raise Unsupported("torchao does not support float64 weights: call .float() on the model first")
        if not packed and not layers:
            raise Unsupported("there is no linear or convolution layer to round")
        config = Int8WeightOnlyConfig(set_inductor_config=False, version=2)
        quantize_(model.module, config, filter_fn=lambda layer, _: layer in layers)
        record(model, packed_weights(model.module) + sum(layer.weight.numel() for layer in layers), weights)
        model.facts["layers"] = f"{packed + len(layers)} of {candidates} linear, convolution and embedding layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Put empty packed layers in place; torchao's weights come from the file."""
        from torch import nn
        from torchao.quantization import Int8Tensor  # noqa: F401  (registers the type that the file's reader needs)

        from mlflow_compress.compression.rounded_linear import ready_for_kernels

        self._pack(model, filled=False)
        layers = called(model.module, nn.Linear, head=self.embeddings)
        model.module = ready_for_kernels(model.module, layers)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the format compressed-tensors, which transformers and vLLM load (see `Method.publish`)."""
        from mlflow_compress.compression.published_integers import publish_integers

        return publish_integers(saved, family, portable, folder)

    def _pack(self, model: Model, filled: bool) -> int:
        from mlflow_compress.compression.packed_layers import CONVOLUTIONS, pack_layers

        model.module, packed = pack_layers(model.module, _BITS, _ROW, CONVOLUTIONS, self.embeddings, filled)
        return packed
