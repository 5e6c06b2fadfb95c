"""AWQ: weights of strong input channels are scaled up before all are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from mlflow_compress.compression.coverage import NO_KERNEL, note
from mlflow_compress.compression.layers import count
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Method, Model, State

_SMALLEST = 1e-4  # of an input channel's mean magnitude


@dataclass
class Awq(Method):
    """AWQ: linear weights rounded to few bits in groups, after those of strong input channels were scaled up.

    A channel's scale is its inputs' mean magnitude to a power between 0 and 1; each layer takes the power that changes
    its outputs on calibration data least. The inputs are scaled down when the layer is called, rather than in the
    layer before it, so that any architecture is served. Layers are fitted in the order of execution, each to the inputs
    that the rounded layers before it give, in one forward pass over all samples at once. Embeddings, convolutions,
    normalisation, biases and a language model's head stay as they are. The weights are unpacked at every call: what
    is saved is bytes, not time.

    Source: Lin et al., arXiv 2306.00978, equations 4 and 5, without clipping of weights.

    Attributes:
        bits: of a weight.
        group_size: neighbouring weights of one output channel that share a scale and a zero point.
        samples: samples of calibration data; None: 128 texts, or 32 of anything else.
        steps: how many powers are tried.
        seed: of the choice of samples.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    gives: ClassVar[State] = "packed"
    revision: ClassVar[int] = 2
    excludes: ClassVar[Mapping[str, str]] = {"yolo": "its detectors have no linear layer"}

    bits: Annotated[int, Ge(2), Le(8)] = 4
    group_size: Annotated[int, Ge(8)] = 128
    samples: Annotated[int | None, Ge(1)] = None
    steps: Annotated[int, Ge(2)] = 20
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Scale and round the weights in place.

        Raises:
            Unsupported: there is no linear layer to round, or no data for trained weights.
        """
        import torch

        from mlflow_compress.compression.calibration import Inputs, fit_in_order
        from mlflow_compress.compression.packing import Packed, PackedLinear, packable

        def fitted(layer: Any, inputs: Inputs | None) -> PackedLinear:
            weight = layer.weight.detach().float()
            scale = torch.ones(weight.shape[1])
            if inputs is not None:
                scale = best_scale(weight, inputs, self.bits, self.group_size, self.steps)
            packed = Packed.of(weight * scale, self.bits, self.group_size)
            return PackedLinear(packed, layer.bias, (1 / scale).to(layer.weight.dtype))

        layers, total = packable(model.module, self.bits, self.group_size), count(model.module, torch.nn.Linear)
        if not layers:
            raise Unsupported(f"there is no linear layer that {self.bits} bits would make smaller")
        note(model, [layer.weight for layer in layers])
        fit_in_order(model, family, layers, self.samples, self.seed, fitted)
        model.cautions.append(NO_KERNEL.of(bits=self.bits))
        model.facts["layers"] = f"{len(layers)} of {total} linear layers"
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Put empty packed layers in place, so that no float32 copy is ever held."""
        from mlflow_compress.compression.packing import leave_empty

        model.module = leave_empty(model.module, self.bits, self.group_size, scaled=True)
        return model


def best_scale(weight: Any, inputs: Any, bits: int, group_size: int, steps: int) -> Any:
    """Search the scales of the input channels with which rounding changes the layer's outputs least.

    Args:
        weight: [out, in].
        inputs: what is known of the layer's inputs: `calibration.Inputs`.
        bits: of a weight.
        group_size: weights that share a scale and a zero point.
        steps: how many powers are tried, from 0, which is no scaling.

    Returns:
        float32 [in].
    """
    from mlflow_compress.compression.packing import nearest

    best, least = None, float("inf")
    for step in range(steps):
        scale = inputs.magnitude.clamp(min=_SMALLEST) ** (step / steps)
        scale = scale / (scale.max() * scale.min()).sqrt()
        change = nearest(weight * scale, bits, group_size) / scale - weight
        error = float(((change @ inputs.gram) * change).sum())
        if best is None or error < least:
            best, least = scale, error
    return best
