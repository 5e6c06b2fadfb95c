"""Folding the scale of linear layers' inputs into the layer that produces the inputs, without changing the model.

Layers that read one norm's output share a scale, which goes into the norm's weight. A layer that reads the output of
another linear layer (through products with other values, attention or a ReLU) has its scale in that layer's outputs.
Pairs are guessed from the order of calls and then tested: with scales of powers of two, which are exact in floating
point, the model must give the same outputs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.networks.fused_layers import unfused
from mlflow_compress.networks.stored_weights import distance, flat
from mlflow_compress.sockets import Family, Model

_POWERS = (0.5, 1.0, 2.0, 4.0)
_SAME = 1e-5  # maximum relative difference of equal outputs
_MOST_SHARING = 3  # readers of a norm: query, key and value; an encoder's last norm feeds all decoder layers
_LOOKED_BACK = 4  # earlier linear layers to try
_SEED = 5


@dataclass(frozen=True)
class Fold:
    """A layer into which the shared scale of some layers can be folded.

    Attributes:
        producer: Norm or linear layer whose outputs are divided by the scale.
        consumers: Linear layers that read these outputs, in the order of their calls.
        times: Copies of each producer channel among the inputs: for a value, the number of heads that share it.
        width: Width of a head, if `times` is above 1.
    """

    producer: Any
    consumers: tuple[Any, ...]
    times: int = 1
    width: int = 1

    def spread(self, scale: Any) -> Any:
        """Return the scale of each input's producer channel: [in] for [channels]."""
        if self.times == 1:
            return scale
        return scale.view(-1, 1, self.width).expand(-1, self.times, -1).reshape(-1)

    def pooled(self, numbers: Any) -> Any:
        """Return the mean over the inputs that come from one channel: [channels] for [in]."""
        return numbers if self.times == 1 else numbers.view(-1, self.times, self.width).mean(1).reshape(-1)

    def channels(self, scale: Any) -> Any:
        """Return the scale of each channel of the producer, undoing `spread`: [channels] for [in]."""
        return scale if self.times == 1 else scale.view(-1, self.times, self.width)[:, 0].reshape(-1)

    def kind(self) -> tuple[Any, ...]:
        """Return a key for folds that are expected to work or fail together."""
        shapes = [tuple(layer.weight.shape) for layer in self.consumers]
        return type(self.producer), tuple(self.producer.weight.shape), tuple(shapes), self.times


def find(model: Model, family: Family, layers: Iterable[Any]) -> list[Fold]:
    """Find layers into which the scales of other layers' inputs can be folded.

    Args:
        model: Model before compression.
        family: Family that runs it.
        layers: Linear layers to scale.

    Returns:
        Tested folds; a layer is a consumer of at most one.
    """
    import torch

    with torch.no_grad(), unfused():
        trial = _Trial(model, family)
        groups, norms = trial.calls(set(layers))
        folds = trial.exact(
            Fold(norm, tuple(group))
            for group, norm in zip(groups, norms, strict=True)
            if norm is not None and len(group) <= _MOST_SHARING
        )
        folded = {layer for fold in folds for layer in fold.consumers}
        waiting = [index for index, group in enumerate(groups) if not folded & set(group)]
        width = _head_width(model)
        for back in range(_LOOKED_BACK):
            guesses = {index: _before(groups, index, back, width) for index in waiting}
            exact = trial.exact(guess for guess in guesses.values() if guess is not None)
            folds += exact
            waiting = [index for index in waiting if guesses[index] not in exact]
    return folds


def _before(groups: Sequence[list[Any]], index: int, back: int, width: int) -> Fold | None:
    """Guess that a group reads the output of an earlier layer; None if the shapes do not fit."""
    earlier_layers = [layer for group in groups[:index] for layer in group]
    if back >= len(earlier_layers):
        return None
    producer, inputs = earlier_layers[-1 - back], groups[index][0].in_features
    times, remainder = divmod(inputs, producer.out_features)
    if remainder or (times > 1 and (not width or producer.out_features % width)):
        return None
    return Fold(producer, tuple(groups[index]), times, width if times > 1 else 1)


def _head_width(model: Model) -> int:
    """Return the width of an attention head by the config, or 0 if it is not in the config."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    if width := getattr(config, "head_dim", None):
        return int(width)
    hidden, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    return int(hidden) // int(heads) if hidden and heads else 0


class _Trial:
    """Repeated runs of a model on one input."""

    def __init__(self, model: Model, family: Family) -> None:
        self.model, self.family = model, family
        self.batch = family.calibration(dataclasses.replace(model, cautions=[]), 1, _SEED)[0]
        self.expected = self._outputs()

    def _outputs(self) -> Any:
        return flat(self.family.forward(self.model, self.batch)).float()

    def calls(self, layers: set[Any]) -> tuple[list[list[Any]], list[Any]]:
        """Return groups of layers that read one tensor, in the order of calls, and the norm that made it or None."""
        tensors: list[Any] = []  # keeps the tensors alive, so that no id is reused
        norms: dict[int, Any] = {}
        groups: dict[int, list[Any]] = {}
        called_modules: set[Any] = set()

        def after_norm(module: Any, inputs: Any, output: Any) -> None:
            tensors.append(output)
            norms[id(output)] = module

        def before_layer(module: Any, inputs: Any) -> None:
            if module not in called_modules and inputs:
                called_modules.add(module)
                tensors.append(inputs[0])
                groups.setdefault(id(inputs[0]), []).append(module)

        modules = list(self.model.module.modules())
        hooks = [module.register_forward_hook(after_norm) for module in modules if _is_norm(module)]
        hooks += [module.register_forward_pre_hook(before_layer) for module in modules if module in layers]
        try:
            self._outputs()
        finally:
            for hook in hooks:
                hook.remove()
        return list(groups.values()), [norms.get(key) for key in groups]

    def exact(self, folds: Iterable[Fold]) -> list[Fold]:
        """Return the folds that do not change the model's outputs."""
        kinds: dict[Any, list[Fold]] = {}
        for fold in folds:
            kinds.setdefault(fold.kind(), []).append(fold)
        return list(itertools.chain.from_iterable(self._bisected(group) for group in kinds.values()))

    def _bisected(self, folds: list[Fold]) -> list[Fold]:
        """Return the exact folds by bisection; none if the first and the last both fail: each trial costs a pass."""
        if not folds or self._gives_the_same(folds):
            return folds
        if len(folds) > 2 and not any(self._gives_the_same([fold]) for fold in (folds[0], folds[-1])):
            return []
        middle = len(folds) // 2
        return self._bisected(folds[:middle]) + self._bisected(folds[middle:]) if middle else []

    def _gives_the_same(self, folds: list[Fold]) -> bool:
        import torch

        generator = torch.Generator().manual_seed(_SEED)
        powers = torch.tensor(_POWERS)
        scales = []
        for fold in folds:
            weight = fold.producer.weight
            scale = powers[torch.randint(len(powers), (len(weight),), generator=generator)].to(weight)
            scales.append(scale)
            divide(fold.producer, scale)
            _multiply(fold, scale)
        try:
            moved = distance(self._outputs(), self.expected)
        finally:
            for fold, scale in zip(folds, scales, strict=True):
                divide(fold.producer, 1 / scale)
                _multiply(fold, 1 / scale)
        return bool(moved <= _SAME)


def divide(producer: Any, scale: Any) -> None:
    """Divide the outputs of a norm or a linear layer by a scale [channels]."""
    weight = producer.weight.data
    weight.div_(scale.to(weight) if weight.dim() == 1 else scale.to(weight)[:, None])
    if getattr(producer, "bias", None) is not None:
        producer.bias.data.div_(scale.to(producer.bias))


def _multiply(fold: Fold, scale: Any) -> None:
    for layer in fold.consumers:
        layer.weight.data.mul_(fold.spread(scale))


def _is_norm(module: Any) -> bool:
    """Return whether a module holds only a weight per channel and optionally a bias."""
    parameters = dict(module.named_parameters(recurse=False))
    if (weight := parameters.get("weight")) is None or weight.dim() != 1:
        return False
    return set(parameters) <= {"weight", "bias"} and not list(module.children())
