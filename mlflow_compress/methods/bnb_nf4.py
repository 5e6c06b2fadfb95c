"""Linear layers in 4-bit NormalFloat, as in QLoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, Predicate

from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.layers import called, count, replace
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, State


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


@dataclass
class BnbNf4(Method):
    """NF4 of bitsandbytes: linear weights in 4 bits, on a grid for normally distributed weights.

    Embeddings, convolutions, normalisation, biases and a language model's head stay unchanged. Weights are unpacked at
    every call and multiplied in the type of the inputs: only bytes are saved. Made for GPUs; on a CPU it is fast only
    with AVX512-BF16.

    Source: Dettmers et al., QLoRA, arXiv 2305.14314; bitsandbytes.nn.Linear4bit.

    Attributes:
        block_size: Weights that share a scale: 64, 128, and so on up to 4096.
        double: Quantise the scales to 8 bits too.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    needs: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    extra: ClassVar[str] = "quantization"
    excludes: ClassVar[Mapping[str, str]] = {
        "yolo": "its detectors have no linear layer, and bitsandbytes does not support convolutions"
    }
    revision: ClassVar[int] = 2

    block_size: Annotated[int, Ge(64), Le(4096), Predicate(_is_power_of_two)] = 64
    double: bool = True

    def compress(self, model: Model, family: Family) -> Model:
        """Quantise in place.

        Raises:
            Unsupported: There is no linear layer, or one is float64.
        """
        import torch

        from mlflow_compress.compression.bnb import Linear4bit

        make_plain(model)
        layers, total = called(model.module, torch.nn.Linear), count(model.module, torch.nn.Linear)
        if not layers:
            raise Unsupported("there is no linear layer to quantise, and bitsandbytes does not support convolutions")
        if any(layer.weight.dtype == torch.float64 for layer in layers):
            raise Unsupported("bitsandbytes does not support float64 weights: call .float() on the model first")
        note(model, [layer.weight for layer in layers])
        replacements = {layer: Linear4bit.of(layer, self.block_size, self.double) for layer in layers}
        model.module = replace(model.module, replacements)
        model.facts["layers"] = f"{len(layers)} of {total} linear layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the layers by empty 4-bit ones, without a float32 copy in memory."""
        import torch

        from mlflow_compress.compression.bnb import Linear4bit

        layers = called(model.module, torch.nn.Linear)
        replacements = {layer: Linear4bit(layer, self.block_size, self.double) for layer in layers}
        model.module = replace(model.module, replacements)
        return model
