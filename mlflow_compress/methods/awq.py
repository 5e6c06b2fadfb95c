"""AWQ: weights of strong input channels are scaled up, and the largest are clipped, before all are rounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.layers import count
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.sockets import Family, Method, Model, Published, State

_SMALLEST = 1e-4  # lower bound of an input channel's mean magnitude
_CUTS = tuple(1 - step / 20 for step in range(10))  # clipping limits, as shares of a group's largest weight (llm-awq)
_QUERY_OR_KEY = re.compile(r"(^|_)w?(q|k|qkv|query|key)(_|$)", re.IGNORECASE)  # in a layer's own name


@dataclass
class Awq(Method):
    """AWQ: linear weights rounded to few bits in groups, after weights of strong input channels are scaled up.

    A channel's scale is the mean magnitude of its inputs to a power between 0 and 1; each layer uses the power that
    changes its outputs on calibration data least. The inverse scale is folded into the layer that produces the inputs,
    where this computes the same (see `scale_folding`): layers that read one norm's outputs share a scale, which goes
    into the norm's weight; after a product, an attention or a ReLU it goes into the outputs of the linear layer before.
    Other layers scale their inputs at each call; only a model without such layers can be exported. Then the largest
    weights of each group are clipped at 0.55 to 1 of the largest, where this changes the group's part of the outputs
    less; queries and keys are not clipped, because they are multiplied with each other. Layers are fitted in execution
    order, each to the outputs of the rounded layers before it, in one forward pass over all samples. Embeddings,
    convolutions, normalisation, biases and a language model's head stay unchanged except for folded scales. After
    loading, linear layers run on torch's 4-bit kernel with bfloat16 activations if the machine has it; fewer bits are
    widened to 4 in memory.

    Source: Lin et al., arXiv 2306.00978, equations 4 and 5; clipping: auto_clip.py of its code, llm-awq.

    Attributes:
        bits: Bits per weight.
        group_size: Consecutive weights of one output channel that share a scale and a zero point. If it does not
            divide a layer's inputs, the largest size that does.
        samples: Calibration samples; None: 128 texts, or 32 samples of other data.
        steps: Number of powers to try.
        seed: Seed for the choice of samples.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    revision: ClassVar[int] = 7
    excludes: ClassVar[Mapping[str, str]] = {"yolo": "its detectors have no linear layer"}

    bits: Annotated[int, Ge(2), Le(8)] = 4
    group_size: Annotated[int, Ge(8)] = 128
    samples: Annotated[int | None, Ge(1)] = None
    steps: Annotated[int, Ge(2)] = 20
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Scale and round the weights in place.

        Raises:
            Unsupported: There is no linear layer to round, or no data for trained weights.
        """
        import torch

        from mlflow_compress.compression import scale_folding
        from mlflow_compress.compression.calibration import Inputs, fit_in_order
        from mlflow_compress.compression.packed_layers import PackedLinear, packable
        from mlflow_compress.compression.packing import Packed
        from mlflow_compress.compression.weight_groups import caution_other_groups

        make_plain(model)
        modules = model.module.named_modules()
        unclipped = {layer for name, layer in modules if _QUERY_OR_KEY.search(name.rpartition(".")[2])}

        layers, total = packable(model.module, self.bits, self.group_size), count(model.module, torch.nn.Linear)
        if not layers:
            raise Unsupported(f"there is no linear layer that {self.bits} bits would make smaller")
        note(model, [layer.weight for layer in layers])
        caution_other_groups(model, self.group_size, [layer.in_features for layer in layers])
        folds = scale_folding.find(model, family, layers)
        fold_of = {layer: fold for fold in folds for layer in fold.consumers}
        scales: dict[scale_folding.Fold, Any] = {}  # set by the first called layer of a fold
        packed_layers: dict[Any, PackedLinear] = {}

        def scale_of(layer: Any, inputs: Inputs | None) -> Any:
            fold = fold_of.get(layer)
            if fold in scales:
                return scales[fold]
            if inputs is None:
                return torch.ones(layer.in_features)
            sharing = [layer] if fold is None else fold.consumers
            weight = torch.cat([consumer.weight.detach().float() for consumer in sharing])
            if fold is None:
                return best_scale(weight, inputs, self.bits, self.group_size, self.steps)
            pooled = replace(inputs, magnitude=fold.spread(fold.pooled(inputs.magnitude)))
            scales[fold] = best_scale(weight, pooled, self.bits, self.group_size, self.steps)
            return scales[fold]

        def fitted(layer: Any, inputs: Inputs | None) -> PackedLinear:
            scale = scale_of(layer, inputs)
            weight = layer.weight.detach().float() * scale
            if inputs is not None and layer not in unclipped:
                weight = clipped(weight, inputs.gram / scale.outer(scale), self.bits, self.group_size)
            packed = Packed.of(weight, self.bits, self.group_size)
            packed_layers[layer] = PackedLinear(packed, layer.bias, (1 / scale).to(layer.weight.dtype))
            return packed_layers[layer]

        fit_in_order(model, family, layers, self.samples, self.seed, fitted)
        for fold, scale in scales.items():
            producer = packed_layers.get(fold.producer, fold.producer)
            divide = producer.divide if isinstance(producer, PackedLinear) else partial(scale_folding.divide, producer)
            divide(fold.channels(scale))
            for layer in fold.consumers:
                packed_layers[layer].scale_no_inputs()
        model.facts["layers"] = f"{len(layers)} of {total} linear layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Replace the layers by empty packed ones, without a float32 copy in memory."""
        from mlflow_compress.compression.packed_layers import leave_empty

        model.module = leave_empty(model.module, self.bits, self.group_size, scaled=True)
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Write the format compressed-tensors, which transformers and vLLM load (see `Method.publish`)."""
        from mlflow_compress.compression.published_integers import publish_integers

        return publish_integers(saved, family, portable, folder)


def best_scale(weight: Any, inputs: Any, bits: int, group_size: int, steps: int) -> Any:
    """Return the input channel scales with which rounding changes the layer's outputs least.

    Args:
        weight: Weight [out, in].
        inputs: Statistics of the layer's inputs (`calibration.Inputs`).
        bits: Bits per weight.
        group_size: Weights that share a scale and a zero point.
        steps: Number of powers to try, starting with 0, which is no scaling.

    Returns:
        float32 [in].
    """
    from mlflow_compress.compression.weight_groups import nearest

    best, least = None, float("inf")
    for step in range(steps):
        scale = inputs.magnitude.clamp(min=_SMALLEST) ** (step / steps)
        scale = scale / (scale.max() * scale.min()).sqrt()
        change = nearest(weight * scale, bits, group_size) / scale - weight
        error = float(((change @ inputs.gram) * change).sum())
        if best is None or error < least:
            best, least = scale, error
    return best


def clipped(weight: Any, gram: Any, bits: int, group_size: int) -> Any:
    """Clip the largest weights of each group so that rounding changes the group's part of the outputs least.

    Args:
        weight: Weight [out, in].
        gram: Second moments of the inputs [in, in].
        bits: Bits per weight.
        group_size: Weights that share a scale and a zero point.

    Returns:
        float32 [out, in].
    """
    import torch

    from mlflow_compress.compression.weight_groups import Grid, fitting, grouped

    groups = grouped(weight, fitting(group_size, weight.shape[1]))
    moments = _within_groups(gram, groups.shape[-1])
    largest = groups.abs().amax(-1, keepdim=True)
    best, least = groups, torch.full_like(largest, float("inf"))
    for share in _CUTS:
        candidate = groups.clamp(-share * largest, share * largest)
        grid = Grid.over(candidate, bits)
        change = grid.decode(grid.encode(candidate)) - groups
        error = (torch.einsum("ogi,gij->ogj", change, moments) * change).sum(-1, keepdim=True)
        best, least = torch.where(error < least, candidate, best), torch.minimum(error, least)
    return best.reshape(weight.shape)


def _within_groups(gram: Any, size: int) -> Any:
    """Return the second moments of each group's inputs: [groups, size, size]."""
    import torch

    return torch.stack([gram[start : start + size, start : start + size] for start in range(0, len(gram), size)])
