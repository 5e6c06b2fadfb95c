"""GPTQ: weights rounded column by column, each column compensating the errors of those before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.layers import count
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, Published, State

_BLOCK = 128  # columns after which the errors are applied to the rest at once
_FEW_ROWS = 0.1  # damping per input channel and row: with few rows, chance correlations look like real ones


@dataclass
class Gptq(Method):
    """GPTQ: linear weights rounded to few bits in groups, column by column, so that outputs on data change least.

    Columns are rounded in the order of their inputs' mean squares, the largest first, on the grids of the original
    weights. Each rounding error is compensated in the columns after it, using the inverse of the inputs' second moments
    (the Hessian of the layer's squared output error). Layers are fitted in execution order, each to the outputs of the
    rounded layers before it, in one forward pass over all samples. Embeddings, convolutions, normalisation, biases and
    a language model's head stay unchanged. After loading, linear layers run on torch's 4-bit kernel with bfloat16
    activations if the machine has it; fewer bits are widened to 4 in memory.

    Source: Frantar et al., arXiv 2210.17323, algorithm 1; order and grids: act_order with static_groups in its code.

    Attributes:
        bits: Bits per weight.
        group_size: Consecutive weights of one output channel that share a scale and a zero point. If it does not
            divide a layer's inputs, the largest size that does.
        samples: Calibration samples; None: 128 texts, or 32 samples of other data.
        damping: Share of its mean added to the Hessian's diagonal; layers with few inputs get more.
        seed: Seed for the choice of samples.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    revision: ClassVar[int] = 6
    excludes: ClassVar[Mapping[str, str]] = {"yolo": "its detectors have no linear layer"}

    bits: Annotated[int, Ge(2), Le(8)] = 4
    group_size: Annotated[int, Ge(8)] = 128
    samples: Annotated[int | None, Ge(1)] = None
    damping: Annotated[float, Gt(0), Le(1)] = 0.01
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Round the weights in place.

        Raises:
            Unsupported: There is no linear layer to round, or no data for trained weights.
        """
        import torch

        from mlflow_compress.compression.calibration import Inputs, fit_in_order
        from mlflow_compress.compression.packed_layers import PackedLinear, packable
        from mlflow_compress.compression.packing import Packed
        from mlflow_compress.compression.weight_groups import caution_other_groups

        make_plain(model)

        def fitted(layer: Any, inputs: Inputs | None) -> PackedLinear:
            if inputs is None:
                return PackedLinear(Packed.of(layer.weight, self.bits, self.group_size), layer.bias)
            damping = self.damping + _FEW_ROWS * layer.in_features / inputs.rows
            return PackedLinear(rounded(layer.weight, inputs.gram, self.bits, self.group_size, damping), layer.bias)

        layers, total = packable(model.module, self.bits, self.group_size), count(model.module, torch.nn.Linear)
        if not layers:
            raise Unsupported(f"there is no linear layer that {self.bits} bits would make smaller")
        note(model, [layer.weight for layer in layers])
        caution_other_groups(model, self.group_size, [layer.in_features for layer in layers])
        fit_in_order(model, family, layers, self.samples, self.seed, fitted)
        model.facts["layers"] = f"{len(layers)} of {total} linear layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the layers by empty packed ones, without a float32 copy in memory."""
        from mlflow_compress.compression.packed_layers import leave_empty

        model.module = leave_empty(model.module, self.bits, self.group_size)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the format compressed-tensors, which transformers and vLLM load (see `Method.publish`)."""
        from mlflow_compress.compression.published_integers import publish_integers

        return publish_integers(saved, family, portable, folder)


def rounded(weight: Any, gram: Any, bits: int, group_size: int, damping: float) -> Any:
    """Round a weight so that the layer's outputs change least.

    Args:
        weight: Weight [out, in].
        gram: Second moments of the inputs [in, in].
        bits: Bits per weight.
        group_size: Weights that share a scale and a zero point.
        damping: Share of its mean added to the diagonal of the second moments.

    Returns:
        The weight as `packing.Packed`.
    """
    import torch

    from mlflow_compress.compression.packing import Packed
    from mlflow_compress.compression.weight_groups import Grid

    packed = Packed(weight.shape, bits, group_size)
    rows = weight.detach().float()
    grids = Grid.over(rows.reshape(packed.rows, -1, packed.group_size), bits)
    order = gram.diagonal().argsort(descending=True, stable=True)  # the strongest inputs first
    factor = _inverse_factor(gram[order][:, order], damping)
    remaining = rows.T[order]  # [in, out]: a column of the weight is a row in memory
    codes = torch.empty(remaining.shape, dtype=torch.uint8)
    for first in range(0, packed.columns, _BLOCK):
        end = min(first + _BLOCK, packed.columns)
        errors = torch.empty(end - first, packed.rows)
        for index in range(first, end):
            group = int(order[index]) // packed.group_size
            grid = Grid(bits, grids.scales[:, group], grids.zeros[:, group])
            column = grid.encode(remaining[index, :, None])
            codes[order[index]] = column[:, 0]
            error = errors[index - first]
            torch.sub(remaining[index], grid.decode(column)[:, 0], out=error)
            error /= factor[index, index]
            remaining[index + 1 : end].addr_(factor[index, index + 1 : end], error, alpha=-1)
        remaining[end:].addmm_(factor[first:end, end:].T, errors, alpha=-1)
    return packed.fill(codes.T, grids.scales[..., 0], grids.zeros[..., 0])


def _inverse_factor(gram: Any, damping: float) -> Any:
    """Return the upper triangular U such that U^T U is the inverse of the damped matrix.

    Flipping both axes turns the lower Cholesky factor into an upper one: gram = R R^T, and U is the inverse of R.
    """
    import torch

    damped = gram.double()
    diagonal = damped.diagonal()
    diagonal += (damping * diagonal.mean()).clamp(min=torch.finfo(torch.float32).tiny)
    upper = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(damped), dtype=damped.dtype)
    return torch.linalg.solve_triangular(upper, identity, upper=True).float()
