"""Weights rounded to 4 bits, without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression.coverage import record, total
from mlflow_compress.compression.layers import count
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, Published, State

_BITS = 4


@dataclass
class Int4WeightOnly(Method):
    """Weights of linear and convolution layers rounded to 4 bits in groups, two to a byte; activations stay float.

    Each group of weights of one output channel has a scale (bfloat16) and a zero point. Normalisation and biases stay
    unchanged, and so do embeddings and a language model's head unless `embeddings` is set. After loading, linear layers
    run on torch's 4-bit kernel with bfloat16 activations if the machine has it.

    The saved file is the same on all machines: weights are repacked for the kernel when the model is loaded.

    Source: Jacob et al., arXiv 1712.05877, equation 1; groups as in Dettmers and Zettlemoyer, arXiv 2212.09720.

    Attributes:
        group_size: Consecutive weights of one output channel that share a scale and a zero point. If it does not
            divide a layer's inputs, the largest size that does.
        embeddings: Pack embeddings and the head too; tied ones stay tied.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    revision: ClassVar[int] = 4

    group_size: Annotated[int, Ge(8)] = 128
    embeddings: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Round the weights in place.

        Raises:
            Unsupported: There is no layer whose weights would take fewer bits.
        """
        from torch import nn

        from mlflow_compress.compression.packed_layers import CONVOLUTIONS, packed_weights
        from mlflow_compress.compression.packing import Packed
        from mlflow_compress.compression.weight_groups import caution_other_groups

        make_plain(model)
        layers, weights = count(model.module, nn.Linear, *CONVOLUTIONS, nn.Embedding), total(model.module)
        if not (packed := self._pack(model, filled=True)):
            raise Unsupported("there is no linear or convolution layer that 4 bits would make smaller")
        record(model, packed_weights(model.module), weights)
        columns = [weight.columns for weight in model.module.modules() if isinstance(weight, Packed)]
        caution_other_groups(model, self.group_size, columns)
        model.facts["layers"] = f"{packed} of {layers} linear, convolution and embedding layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the layers by empty packed ones, without a float32 copy in memory."""
        self._pack(model, filled=False)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the format compressed-tensors, which transformers and vLLM load (see `Method.publish`)."""
        from mlflow_compress.compression.published_integers import publish_integers

        return publish_integers(saved, family, portable, folder)

    def _pack(self, model: Model, filled: bool) -> int:
        from torch import nn

        from mlflow_compress.compression.packed_layers import CONVOLUTIONS, pack_layers

        kinds = (nn.Linear, *CONVOLUTIONS)
        model.module, packed = pack_layers(model.module, _BITS, self.group_size, kinds, self.embeddings, filled)
        return packed
