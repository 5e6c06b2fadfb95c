"""Fits layers to what they are fed: runs data through a model, and replaces each linear layer at its first call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mlflow_compress.compression.layers import replace
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Model

UNCALIBRATED_LAYERS = CautionKind(
    "uncalibrated_layers",
    short={"en": "some layers were compressed without data", "ru": "часть слоёв сжата без данных"},
    message={
        "en": "{waiting} of {all} layers were never called on the calibration data",
        "ru": "слоёв, которые на данных калибровки ни разу не вызывались: {waiting} из {all}",
    },
    advice={
        "en": "Their weights are rounded without data.",
        "ru": "Их веса округлены без данных.",
    },
)
_MOST_ROWS = 16_384  # of inputs that a layer is fitted to


@dataclass(frozen=True)
class Inputs:
    """What is known of a layer's inputs, float32 [rows, in].

    Attributes:
        rows: how many there are.
        gram: the mean of their outer products [in, in].
        magnitude: the mean of their absolute values [in].
    """

    rows: int
    gram: Any
    magnitude: Any

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Sum up inputs [..., in]; of very many, evenly spaced ones."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        rows = rows[:: max(1, -(-len(rows) // _MOST_ROWS))].float()
        return cls(len(rows), rows.T @ rows / len(rows), rows.abs().mean(0))


def fit_in_order(
    model: Model,
    family: Family,
    layers: Iterable[Any],
    samples: int,
    seed: int,
    fit: Callable[[Any, Inputs | None], Any],
) -> None:
    """Replace linear layers one by one, in the order in which the model calls them, in one forward pass.

    Each layer is fitted to inputs that come from the layers replaced before it, as it will be when the model is used. A
    layer that is called several times is fitted to its first call. All samples go through the model as one batch.

    Args:
        model: the model; its module is changed.
        family: gives the samples, and runs them.
        layers: the layers to replace.
        samples: how many samples.
        seed: of the samples.
        fit: makes the new layer from the old one and its inputs; None for a layer that was never called.
    """
    import torch

    waiting, fitted = set(layers), {}
    last: tuple[Any, Inputs | None] = (None, None)

    def at_first_call(layer: Any, inputs: Any) -> Any:
        nonlocal last
        if last[0] is not inputs:  # query, key and value are fed the same
            last = inputs, Inputs.of(inputs)
        assert last[1] is not None
        fitted[layer] = fit(layer, last[1])
        waiting.remove(layer)
        if not waiting:
            raise _Done
        layer.forward = fitted[layer].forward
        return layer.forward(inputs)

    def stop(layer: Any) -> Callable[[Any], Any]:
        return lambda inputs: at_first_call(layer, inputs)

    for layer in waiting:
        layer.forward = stop(layer)
    was_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would read torch's own transformer layers without calling them
    try:
        with torch.no_grad():
            family.forward(model, family.calibration(model, 1, seed, samples)[0])
    except _Done:
        pass
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)
        for layer in (*waiting, *fitted):
            del layer.forward
    if waiting:
        model.cautions.append(UNCALIBRATED_LAYERS.of(waiting=len(waiting), all=len(waiting) + len(fitted)))
    model.module = replace(model.module, fitted | {layer: fit(layer, None) for layer in waiting})


class _Done(Exception):  # noqa: N818  (nothing went wrong)
    """Every layer is replaced: the rest of the pass is of no use."""
