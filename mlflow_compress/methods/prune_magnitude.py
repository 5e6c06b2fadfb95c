"""The smallest weights set to zero, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Lt

from mlflow_compress.compression import pruning
from mlflow_compress.compression.coverage import DENSE_ZEROS, note
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain, transposed_types
from mlflow_compress.sockets import Family, Method, Model


@dataclass
class PruneMagnitude(Method):
    """Unstructured magnitude pruning of linear, convolution, attention and recurrent weights, without retraining.

    Recurrent layers are LSTM, GRU and plain RNN, attention is torch's own MultiheadAttention; GPT-2's linear layers
    count as linear. Embeddings, normalisation and biases stay unchanged.

    The zeros are stored densely: size in memory and latency do not change, and only the compressed size
    (`size/disk_gzip_mib`) and `size/params_nonzero` show the gain. The mask is not stored.

    Source: Han et al., Learning both Weights and Connections, arXiv 1506.02626.

    Attributes:
        amount: Share of each layer's (or of all) weights that becomes zero.
        scope: Rank weights within each layer, or over the whole model (`global`).
    """

    changes: ClassVar[Literal["weights"]] = "weights"
    revision: ClassVar[int] = 2

    amount: Annotated[float, Gt(0), Lt(1)] = 0.5
    scope: Literal["layer", "global"] = "layer"

    def compress(self, model: Model, family: Family) -> Model:
        """Prune in place.

        Raises:
            Unsupported: There is no such layer.
        """
        make_plain(model, turn=False)
        weights = _weights(model.module)
        if not weights:
            raise Unsupported("there is no linear, convolution, attention or recurrent layer to prune")
        note(model, weights)
        if self.scope == "global":
            _prune(weights, self.amount)
        else:
            for weight in weights:
                _prune([weight], self.amount)
        model.cautions.append(DENSE_ZEROS.of())
        return model


def _weights(module: Any) -> list[Any]:
    """Return the parameters to prune, each once."""
    from torch import nn

    weights = [layer.weight for layer in pruning.learned(module)]
    for layer in module.modules():
        if isinstance(layer, transposed_types()):
            weights.append(layer.weight)
        elif isinstance(layer, nn.RNNBase | nn.RNNCellBase):
            weights += [value for name, value in layer.named_parameters(recurse=False) if name.startswith("weight")]
        elif isinstance(layer, nn.MultiheadAttention):
            parts = (layer.in_proj_weight, layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
            weights += [part for part in parts if part is not None]
    return list({id(weight): weight for weight in weights}.values())


def _prune(weights: list[Any], amount: float) -> None:
    """Set a share of all these weights, the smallest ones, to zero in place; round their number to the nearest."""
    import torch

    magnitudes = torch.cat([weight.detach().abs().reshape(-1) for weight in weights])
    smallest = magnitudes.topk(round(amount * len(magnitudes)), largest=False, sorted=False).indices
    is_kept = torch.ones(len(magnitudes), dtype=torch.bool).index_fill_(0, smallest, False)
    for weight, mask in zip(weights, is_kept.split([weight.numel() for weight in weights]), strict=True):
        weight.data.masked_fill_(~mask.view(weight.shape), 0)
