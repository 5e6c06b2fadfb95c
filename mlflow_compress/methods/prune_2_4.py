"""Two of each four weights set to zero: the pattern of sparse tensor cores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression import compact, pruning
from mlflow_compress.compression.coverage import DENSE_ZEROS, note
from mlflow_compress.compression.layers import linear
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, NativeFlavor, Published

_KEEP, _OF = 2, 4


@dataclass
class Prune24(Method):
    """2:4 sparsity: of each four weights along the input, the two smallest become zero; without retraining.

    Applies to linear layers and convolutions whose inputs (per group) are a multiple of 4; a language model's head and
    layers that share their weight with another stay unchanged. On disk there is one bit per weight and the kept values:
    0.53 of the bytes in float32, 0.56 in half precision. Loading fills in the zeros: the model runs dense, with the
    original's memory and latency.

    Only `kernels=sparse` changes this, on a CUDA device with sparse tensor cores (Ampere and later), for linear layers
    in half precision whose shape the kernels support (`prune_2_4:kernels=sparse+fp16`): torch's semi-structured tensors
    then replace the weights at the first call. Only large multiplications can become faster.

    Source: Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378; torch.sparse.

    Attributes:
        kernels: `sparse` runs linear layers by torch.sparse.to_sparse_semi_structured where possible.
    """

    changes: ClassVar[Literal["storage"]] = "storage"
    revision: ClassVar[int] = 2

    kernels: Literal["dense", "sparse"] = "dense"

    def compress(self, model: Model, family: Family) -> Model:
        """Prune in place.

        Raises:
            Unsupported: No layer's inputs are a multiple of 4, or all layers have the pattern already.
        """
        make_plain(model)
        layers = pruning.inner(model.module)
        reached = []
        for layer in layers:
            weight = pruning.by_input(layer.weight.data)
            if weight.shape[-1] % _OF == 0:
                mask = pruning.largest(weight.abs(), _KEEP, _OF)
                if bool(weight[~mask].any()):
                    reached.append(layer.weight)
                weight.masked_fill_(~mask, 0)
        if not reached:
            raise Unsupported(
                f"no linear or convolution layer has inputs that are a multiple of {_OF} and weights left to prune"
            )
        note(model, reached)
        if self.kernels == "dense":
            model.cautions.append(DENSE_ZEROS.of())
        model.facts["layers"] = f"{len(reached)} of {len(layers)} layers pruned"
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Write the mask and the kept values."""
        compact.save_compact(model.module, folder)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Fill in the zeros, and make linear layers switch to sparse kernels at their first call on CUDA."""
        compact.load_compact(model.module, folder)
        if self.kernels == "sparse":
            for layer in linear(model.module):
                layer.register_forward_pre_hook(_turn_sparse)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the float weights with their zeros (see `Method.publish`)."""
        return compact.publish_dense(saved, family, portable, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the flavor of the float weights, if they are saved as such (see `Method.native_flavor`)."""
        return compact.native_flavor_of_dense(saved, family)


def _turn_sparse(layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Replace the weight by a semi-structured tensor if there are kernels for it."""
    import torch

    weight = layer.weight
    if not weight.is_cuda or weight.dtype not in (torch.float16, torch.bfloat16):
        return None
    if isinstance(weight, torch.sparse.SparseSemiStructuredTensor):
        return (inputs[0].contiguous(), *inputs[1:])  # their `linear` views its input
    if weight.shape[1] % _OF == 0 and int(weight.unflatten(1, (-1, _OF)).count_nonzero(-1).max()) <= _KEEP:
        with contextlib.suppress(RuntimeError):  # the kernels do not support the shape
            sparse = torch.sparse.to_sparse_semi_structured(weight.data)
            layer.weight = torch.nn.Parameter(sparse, requires_grad=False)
            return _turn_sparse(layer, inputs)
    return None
