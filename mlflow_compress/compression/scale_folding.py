"""Where a scale of linear layers' inputs can be put into what makes the inputs, without changing what is computed.

Layers that take one norm's output share a scale, which goes into the norm's weight; a layer that takes what another
linear layer made (by products with something else, by attention, by a ReLU) has it in that layer's outputs. What may
stand for what is guessed by the order of calls, and then tried: scaled by powers of two, which floating point does
exactly, the model must give the same.
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
_SAME = 1e-5  # relative difference of outputs, at most
_MOST_SHARING = 3  # of a norm's outputs: query, key and value; an encoder's last norm feeds all layers of the decoder
_LOOKED_BACK = 4  # at linear layers called before
_SEED = 5


@dataclass(frozen=True)
class Fold:
    """A place for the scale that some layers share.

    Attributes:
        producer: a norm, or a linear layer, whose outputs are divided by it.
        consumers: the linear layers whose inputs these are, in the order of their calls.
        times: how often a channel of the producer is among the inputs: of a value, as often as heads share it.
        width: of a head, where `times` is more than 1.
    """

    producer: Any
    consumers: tuple[Any, ...]
    times: int = 1
    width: int = 1

    def spread(self, scale: Any) -> Any:
        """Return for each input the scale of the producer's channel that it comes from: [in] for [channels]."""
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
        """Return what folds that hold or fail together have in common."""
        shapes = [tuple(layer.weight.shape) for layer in self.consumers]
        return type(self.producer), tuple(self.producer.weight.shape), tuple(shapes), self.times


def find(model: Model, family: Family, layers: Iterable[Any]) -> list[Fold]:
    """Find where the scales of layers' inputs can be put.

    Args:
        model: the model, not compressed yet.
        family: runs it.
        layers: the linear layers that are to be scaled.

    Returns:
        Folds that were tried; a layer is a consumer in one at most.
    """
    import torch

    with torch.no_grad(), unfused():
        trial = _Trial(model, family)
        groups, makers = trial.calls(set(layers))
        found = trial.holding(
            Fold(norm, tuple(group))
            for group, norm in zip(groups, makers, strict=True)
            if norm is not None and len(group) <= _MOST_SHARING
        )
        served = {layer for fold in found for layer in fold.consumers}
        waiting = [index for index, group in enumerate(groups) if not served & set(group)]
        width = _head_width(model)
        for back in range(_LOOKED_BACK):
            guesses = {index: _before(groups, index, back, width) for index in waiting}
            held = trial.holding(guess for guess in guesses.values() if guess is not None)
            found += held
            waiting = [index for index in waiting if guesses[index] not in held]
    return found


def _before(groups: Sequence[list[Any]], index: int, back: int, width: int) -> Fold | None:
    """Guess that a group takes what the layer so many calls before it made; None: that does not fit."""
    before = [layer for group in groups[:index] for layer in group]
    if back >= len(before):
        return None
    producer, wanted = before[-1 - back], groups[index][0].in_features
    times, rest = divmod(wanted, producer.out_features)
    if rest or (times > 1 and (not width or producer.out_features % width)):
        return None
    return Fold(producer, tuple(groups[index]), times, width if times > 1 else 1)


def _head_width(model: Model) -> int:
    """Return how many channels an attention's head has, as the config says; 0: it does not."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    if width := getattr(config, "head_dim", None):
        return int(width)
    hidden, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    return int(hidden) // int(heads) if hidden and heads else 0


class _Trial:
    """Runs a model on one input, again and again."""

    def __init__(self, model: Model, family: Family) -> None:
        self.model, self.family = model, family
        self.batch = family.calibration(dataclasses.replace(model, cautions=[]), 1, _SEED)[0]
        self.expected = self._outputs()

    def _outputs(self) -> Any:
        return flat(self.family.forward(self.model, self.batch)).float()

    def calls(self, layers: set[Any]) -> tuple[list[list[Any]], list[Any]]:
        """Return the layers that are called on one tensor, in the order of calls, and the norm that made it or None."""
        kept: list[Any] = []  # so that no address is used twice
        norms: dict[int, Any] = {}
        groups: dict[int, list[Any]] = {}
        seen: set[Any] = set()

        def made(module: Any, given: Any, output: Any) -> None:
            kept.append(output)
            norms[id(output)] = module

        def called(module: Any, given: Any) -> None:
            if module not in seen and given:
                seen.add(module)
                kept.append(given[0])
                groups.setdefault(id(given[0]), []).append(module)

        modules = list(self.model.module.modules())
        hooks = [each.register_forward_hook(made) for each in modules if _is_norm(each)]
        hooks += [each.register_forward_pre_hook(called) for each in modules if each in layers]
        try:
            self._outputs()
        finally:
            for hook in hooks:
                hook.remove()
        return list(groups.values()), [norms.get(key) for key in groups]

    def holding(self, folds: Iterable[Fold]) -> list[Fold]:
        """Return those with which the model gives the same."""
        kinds: dict[Any, list[Fold]] = {}
        for fold in folds:
            kinds.setdefault(fold.kind(), []).append(fold)
        return list(itertools.chain.from_iterable(self._halved(each) for each in kinds.values()))

    def _halved(self, folds: list[Fold]) -> list[Fold]:
        """Return those that hold; none where neither the first nor the last does: each trial is a pass."""
        if not folds or self._gives_the_same(folds):
            return folds
        if len(folds) > 2 and not any(self._gives_the_same([each]) for each in (folds[0], folds[-1])):
            return []
        middle = len(folds) // 2
        return self._halved(folds[:middle]) + self._halved(folds[middle:]) if middle else []

    def _gives_the_same(self, folds: list[Fold]) -> bool:
        import torch

        generator = torch.Generator().manual_seed(_SEED)
        powers = torch.tensor(_POWERS)
        drawn = []
        for fold in folds:
            weight = fold.producer.weight
            scale = powers[torch.randint(len(powers), (len(weight),), generator=generator)].to(weight)
            drawn.append(scale)
            divide(fold.producer, scale)
            _multiply(fold, scale)
        try:
            moved = distance(self._outputs(), self.expected)
        finally:
            for fold, scale in zip(folds, drawn, strict=True):
                divide(fold.producer, 1 / scale)
                _multiply(fold, 1 / scale)
        return bool(moved <= _SAME)


def divide(producer: Any, scale: Any) -> None:
    """Divide what a norm or a linear layer gives by a scale [channels]."""
    weight = producer.weight.data
    weight.div_(scale.to(weight) if weight.dim() == 1 else scale.to(weight)[:, None])
    if getattr(producer, "bias", None) is not None:
        producer.bias.data.div_(scale.to(producer.bias))


def _multiply(fold: Fold, scale: Any) -> None:
    for layer in fold.consumers:
        layer.weight.data.mul_(fold.spread(scale))


def _is_norm(module: Any) -> bool:
    """Return whether a module holds a weight for each channel, and perhaps a bias, and nothing else."""
    held = dict(module.named_parameters(recurse=False))
    weight = held.get("weight")
    return weight is not None and weight.dim() == 1 and set(held) <= {"weight", "bias"} and not list(module.children())
