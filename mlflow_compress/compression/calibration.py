"""Calibration: run data through a model, and replace each linear layer by one fitted to its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_compress.compression.layers import replace
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.fused_layers import unfused
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import RANDOM_CALIBRATION, Family, Model

EXAMPLE_CALIBRATION = CautionKind(
    "example_calibration",
    short={"en": "calibrated on one example", "ru": "калибровка на одном примере"},
    message={
        "en": "the method was calibrated only on the model's own input example",
        "ru": "метод калиброван только на собственном примере входа модели",
    },
    advice={
        "en": "Quality on other inputs may be much worse. Use data with a training part, set "
        "data=SOURCE:calibration=OTHER, or log the model with an input_example of 16 different rows or more.",
        "ru": "На других входах качество может быть намного хуже. Возьмите данные с обучающей частью, задайте "
        "data=SOURCE:calibration=OTHER или сохраните модель с input_example из 16 разных строк или больше.",
    },
)
UNCALIBRATED_LAYERS = CautionKind(
    "uncalibrated_layers",
    short={"en": "some layers were compressed without data", "ru": "часть слоёв сжата без данных"},
    message={
        "en": "{waiting} of {all} layers were never called on the calibration data",
        "ru": "на данных калибровки ни разу не вызывались слои: {waiting} из {all}",
    },
    advice={
        "en": "Their weights are rounded without data.",
        "ru": "Их веса округлены без данных.",
    },
)
FEW_TOKENS = CautionKind(
    "few_calibration_tokens",
    short={"en": "calibrated on few tokens", "ru": "калибровка на малом числе токенов"},
    message={
        "en": "the method was calibrated on {tokens} tokens; at least {least} are usual",
        "ru": "метод калиброван на {tokens} токенах; обычно берут не меньше {least}",
    },
    advice={
        "en": "Increase the method's samples or the family's calibration_tokens.",
        "ru": "Увеличьте samples метода или calibration_tokens семейства.",
    },
)
# What a family gives if it has no data, by the code of the caution that states it.
_IN_PLACE_OF_DATA = {RANDOM_CALIBRATION.code: "random inputs", EXAMPLE_CALIBRATION.code: "repeated examples"}
_FEWEST_TOKENS = 16_384  # GPTQ and Wanda take 128 x 2,048 of them, AWQ 512 x 512
_TOKEN_SAMPLES, _SAMPLES = 128, 32  # rows of tokens, and samples that take more memory
_MOST_ROWS = 16_384  # input rows that a layer is fitted to


@dataclass(frozen=True)
class Inputs:
    """Statistics of a layer's inputs, float32 [rows, in].

    Attributes:
        rows: Number of rows.
        gram: Mean of their outer products [in, in].
        magnitude: Mean of their absolute values [in].
    """

    rows: int
    gram: Any
    magnitude: Any

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Summarise inputs [..., in]; if there are very many, only evenly spaced ones."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        rows = rows[:: max(1, -(-len(rows) // _MOST_ROWS))].float()
        return cls(len(rows), rows.T @ rows / len(rows), rows.abs().mean(0))


def in_place_of_data(model: Model) -> str:
    """Return the replacement of data that a model's cautions name; empty if there is data."""
    replacements = (_IN_PLACE_OF_DATA.get(caution.code, "") for caution in model.cautions)
    return next(filter(None, replacements), "")


def has_data(model: Model, family: Family) -> bool:
    """Return whether the family has real inputs for this model, and not just one repeated example."""
    return not _replacement(model, family)


def _replacement(model: Model, family: Family) -> str:
    probe = dataclasses.replace(model, cautions=[])
    family.calibration(probe, 1, 0)
    return in_place_of_data(probe)


def require_data(model: Model, family: Family) -> None:
    """Reject fitting trained weights to random inputs or to one example: the result is worse than without any data.

    Raises:
        Unsupported: The weights are trained, and there are no real inputs.
    """
    if model.weights != "random" and (replacement := _replacement(model, family)):
        without = ". To measure only size and latency, set weights=random" if family.has_random_weights else ""
        raise Unsupported(
            f"the method fits trained weights to data, but there are only {replacement}, which would ruin the weights. "
            f"Provide {family.calibrates_on}{without}"
        )


def require_data_to_score(model: Model, family: Family) -> None:
    """Require data if the quality is scored; if it is not, a caution is enough.

    Raises:
        Unsupported: See `require_data`.
    """
    if model.evaluation is not None:
        require_data(model, family)


def samples_for(model: Model, family: Family, requested: int | None) -> int:
    """Return the number of calibration samples: as requested, else 128 rows of tokens or 32 samples of other data."""
    if requested is not None:
        return requested
    batch = family.calibration(dataclasses.replace(model, cautions=[]), 1, 0)[0]
    return _TOKEN_SAMPLES if _tokens(batch) else _SAMPLES


def caution_few_tokens(model: Model, batches: Iterable[Any]) -> None:
    """Add a caution if a language model with trained weights is fitted to fewer than 16,384 tokens."""
    import torch

    texts = [batch for batch in batches if isinstance(batch, torch.Tensor)]  # token ids alone: a language model's
    tokens = sum(map(_tokens, texts))
    if model.weights != "random" and 0 < tokens < _FEWEST_TOKENS:
        model.cautions.append(FEW_TOKENS.of(tokens=f"{tokens:,}", least=f"{_FEWEST_TOKENS:,}"))


def _tokens(batch: Any) -> int:
    """Count the token ids of a batch; 0 for images and sounds."""
    import torch

    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch
    return ids.numel() if isinstance(ids, torch.Tensor) and ids.dtype == torch.int64 else 0


def fit_in_order(
    model: Model,
    family: Family,
    layers: Iterable[Any],
    samples: int | None,
    seed: int,
    fit: Callable[[Any, Inputs | None], Any],
) -> None:
    """Replace linear layers one by one, in the order in which the model calls them, in one forward pass.

    Each layer is fitted to the outputs of the layers replaced before it, its real inputs in the compressed model. A
    layer that is called several times is fitted to its first call. All samples go through the model as one batch.

    Args:
        model: Model; its module is changed.
        family: Family that gives the samples and runs them.
        layers: Layers to replace.
        samples: Number of samples; None: see `samples_for`.
        seed: Seed for the samples.
        fit: Makes the new layer from the old one and its inputs, which are None for a layer that was never called.

    Raises:
        Unsupported: There is no data for trained weights.
    """
    import torch

    require_data(model, family)
    batches = family.calibration(model, 1, seed, samples_for(model, family, samples))
    caution_few_tokens(model, batches)

    waiting, fitted = set(layers), 0
    latest: tuple[Any, Inputs | None] = (None, None)

    def put(layer: Any, inputs: Inputs | None) -> None:
        nonlocal fitted
        replacement = fit(layer, inputs)
        model.module = replace(model.module, {layer: replacement})
        layer.forward = replacement.forward  # code that iterates over a list of layers still calls the old one
        layer.weight = None  # free the old weight even if something else refers to the layer
        fitted += 1

    def at_first_call(layer: Any, inputs: Any) -> Any:
        nonlocal latest
        if latest[0] is not inputs:  # query, key and value have the same inputs
            latest = inputs, Inputs.of(inputs)
        assert latest[1] is not None
        put(layer, latest[1])
        waiting.remove(layer)
        if not waiting:
            raise _Done
        return layer.forward(inputs)

    def stop(layer: Any) -> Callable[[Any], Any]:
        return lambda inputs: at_first_call(layer, inputs)

    for layer in waiting:
        layer.forward = stop(layer)
    try:
        with torch.no_grad(), unfused():
            family.forward(model, batches[0])
    except _Done:
        pass
    finally:
        for layer in waiting:
            del layer.forward
    if waiting:
        model.cautions.append(UNCALIBRATED_LAYERS.of(waiting=len(waiting), all=len(waiting) + fitted))
    for layer in waiting:
        put(layer, None)


class _Done(Exception):  # noqa: N818  (nothing went wrong)
    """Every layer is replaced: stop the forward pass."""
