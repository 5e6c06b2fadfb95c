"""Linear and recurrent layers in int8, with one scale per token and per output channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.dynamic_int8 import DynamicInt8
from mlflow_compress.compression.layers import called, replace
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain, transposed_types
from mlflow_compress.sockets import Family, Model, Published


@dataclass
class Int8Dynamic(DynamicInt8):
    """Dynamic int8 (W8A8): weights with one scale per output channel, inputs with one per token at each call.

    All 8 bits, symmetric; integers are multiplied by integers (oneDNN's kernels, through torch). A CPU without AVX-512
    and VNNI has no fast kernel for that: float32 multiplies the same integers there, exactly, so that the numbers are
    the same. Linear layers are replaced, including GPT-2's, and so are LSTM and GRU, whose torch kernels round inputs
    to 7 bits with one scale per step. A language model's head, layers that share their weight, embeddings, convolutions
    and normalisation stay in float32. It runs only on the CPU.

    Source: Yao et al., ZeroQuant, arXiv 2206.01861 (one scale per token); Dettmers et al., LLM.int8(), arXiv
    2208.07339, section 2.1, without its outliers; torch._int_mm, torch.quantized_lstm.

    Attributes:
        per_channel: One scale per output channel instead of one per matrix.
    """

    revision: ClassVar[int] = 3

    per_channel: bool = True

    def compress(self, model: Model, family: Family) -> Model:
        """Quantise in place.

        Raises:
            Unsupported: There is no linear or recurrent layer.
        """
        import torch

        from mlflow_compress.compression.int8_layers import Int8Linear, Int8Recurrent, recurrent

        make_plain(model, turn=False)
        linear, recurring = _linear(model.module), recurrent(model.module)
        if not linear and not recurring:
            raise Unsupported(
                "there is no linear or recurrent layer to quantise, and convolutions have no dynamic int8 kernels"
            )
        note(model, [parameter for layer in (*linear, *recurring) for parameter in layer.parameters(recurse=False)])
        with torch.no_grad():
            replacements: dict[Any, Any] = {
                layer: Int8Linear.of(_matrix(layer), layer.bias, self.per_channel) for layer in linear
            }
            replacements |= {layer: Int8Recurrent.of(layer) for layer in recurring}
        model.module = replace(model.module, replacements)
        model.facts["layers"] = f"{len(linear)} linear and {len(recurring)} recurrent layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the layers by empty int8 ones, without a float32 copy in memory."""
        from mlflow_compress.compression.int8_layers import Int8Linear, Int8Recurrent, recurrent

        replacements: dict[Any, Any] = {layer: Int8Recurrent(layer) for layer in recurrent(model.module)}
        for layer in _linear(model.module):
            out_features, in_features = _matrix(layer).shape
            replacements[layer] = Int8Linear(in_features, out_features, layer.bias)
        model.module = replace(model.module, replacements)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the format compressed-tensors, which transformers and vLLM load (see `Method.publish`)."""
        from mlflow_compress.compression.published_integers import publish_integers

        return publish_integers(saved, family, portable, folder)


def _linear(module: Any) -> list[Any]:
    """Return the linear layers to replace, including transformers' Conv1D with transposed weights."""
    import torch

    return called(module, torch.nn.Linear, *transposed_types())


def _matrix(layer: Any) -> Any:
    """Return a linear layer's weight as [out, in]."""
    import torch

    return layer.weight if isinstance(layer, torch.nn.Linear) else layer.weight.T
