"""The smallest weights set to zero, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Lt

from mlflow_compress.compression import pruning
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Method, Model


@dataclass
class PruneMagnitude(Method):
    """Unstructured magnitude pruning of linear and convolution weights, without retraining.

    The zeros are stored densely: size in memory and latency stay as they were, and only the compressed size
    (`size/disk_gzip_mib`) and `size/params_nonzero` show what was gained. The mask is not stored.

    Source: Han et al., Learning both Weights and Connections, arXiv 1506.02626.

    Attributes:
        amount: share of each layer's (or of all) weights that becomes zero.
        scope: rank weights within each layer, or over the whole model (`global`).
    """

    changes: ClassVar[Literal["weights"]] = "weights"

    amount: Annotated[float, Gt(0), Lt(1)] = 0.5
    scope: Literal["layer", "global"] = "layer"

    def compress(self, model: Model, family: Family) -> Model:
        """Prune in place.

        Raises:
            Unsupported: there is no linear or convolution layer.
        """
        from torch.nn.utils import prune

        targets = [(each, "weight") for each in pruning.learned(model.module)]
        if not targets:
            raise Unsupported("there is no linear or convolution layer to prune")
        if self.scope == "global":
            prune.global_unstructured(targets, pruning_method=prune.L1Unstructured, amount=self.amount)
        else:
            for layer, name in targets:
                prune.l1_unstructured(layer, name, amount=self.amount)
        for layer, name in targets:
            prune.remove(layer, name)  # else the mask is saved too, and the file doubles
            layer.weight.requires_grad_(False)
        return model
