"""Order variants for measuring, and choose those that fit into the remaining time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mlflow_compress.budget import Budget
from mlflow_compress.records import Variant


def originals_first(variants: Sequence[Variant]) -> list[Variant]:
    """Put every original before the variants that are compared with it, and keep the order otherwise.

    A variant's scores are paired with those of an original that was scored earlier.
    """
    keys = [_row(variant) for variant in variants]
    first = {key: index for index, key in reversed(list(enumerate(keys)))}

    def position(index: int) -> tuple[int, bool]:
        is_original = variants[index].is_original
        return (first[keys[index]] if is_original else index, not is_original)

    return [variants[index] for index in sorted(range(len(variants)), key=position)]


def most_informative_first(variants: Sequence[Variant]) -> list[Variant]:
    """Put every original first, the models in turn, then one variant of each method, then the next of each.

    Each method starts with another model, so that a few variants cover many methods and many models. The order is
    deterministic and stable.
    """
    models = _numbered((variant.team, variant.model) for variant in variants)
    methods = _numbered(variant.method for variant in variants if not variant.is_original)
    counts: Counter[tuple[int, int]] = Counter()
    positions: dict[int, list[tuple[int, int, int]]] = {}  # by method; -1: the originals
    for index, variant in enumerate(variants):
        model = models[variant.team, variant.model]
        method = -1 if variant.is_original else methods[variant.method]
        turn = (model - max(method, 0)) % len(models)
        positions.setdefault(method, []).append((counts[model, method], turn, index))
        counts[model, method] += 1
    originals = [index for *_, index in sorted(positions.pop(-1, []))]
    ranked = [
        (number, method, index)
        for method, of_method in positions.items()
        for number, (*_, index) in enumerate(sorted(of_method))
    ]
    return [variants[index] for index in (*originals, *(index for *_, index in sorted(ranked)))]


def first_of_each_model(variants: Sequence[Variant]) -> list[Variant]:
    """Return one variant of each model, for each way in which it is loaded and called."""
    first: dict[str, Variant] = {}
    for variant in variants:
        first.setdefault(_model(variant), variant)
    return list(first.values())


class Queue:
    """Variants that wait to be started while there is time.

    A variant that does not fit into the remaining time is not started, but a later one may be. The first variant is
    started however long it takes.

    Attributes:
        left_out: variants that were removed, since another variant of the same model showed that they would fail.

    Args:
        variants: the variants, in order.
        seconds: estimates how long a variant takes. It is called again before each start, so that estimates can
            improve meanwhile.
        limit: seconds from now in which everything must be measured; None for no limit.
        clock: returns seconds; tests and plans pass their own.
    """

    def __init__(
        self,
        variants: Iterable[Variant],
        seconds: Callable[[Variant], float] = lambda variant: 0.0,
        limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting = list(variants)
        self._seconds = seconds
        self._clock = clock
        self._end = None if limit is None else clock() + limit
        self._started = 0
        self.left_out: list[Variant] = []

    @property
    def waiting(self) -> tuple[Variant, ...]:
        """Return the variants that were not started."""
        return tuple(self._waiting)

    def take(self, serves: Callable[[Variant], bool] = lambda variant: True) -> Variant | None:
        """Return the next variant to start, and count it as started.

        Args:
            serves: returns whether the free machine may measure a variant.

        Returns:
            None if no waiting variant fits into the time and on the machine.
        """
        for index, variant in enumerate(self._waiting):
            if serves(variant) and self._fits(variant):
                self._started += 1
                return self._waiting.pop(index)
        return None

    def put_back(self, variant: Variant) -> None:
        """Put a started variant back at the front, for example after its machine was lost."""
        self._waiting.insert(0, variant)

    def leave_out(self, failed: Variant, succeeded: Iterable[Variant]) -> None:
        """Remove the variants of a model that can't be measured, whatever the method.

        Args:
            failed: a variant that failed because of its model.
            succeeded: variants that were measured. If one of them has the same model, nothing is removed.
        """
        row = _model(failed)
        if row in map(_model, succeeded):
            return
        self.left_out += [variant for variant in self._waiting if _model(variant) == row]
        self._waiting = [variant for variant in self._waiting if _model(variant) != row]

    def _fits(self, variant: Variant) -> bool:
        return self._end is None or not self._started or self._clock() + self._seconds(variant) <= self._end


def _numbered(names: Iterable[object]) -> dict[object, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _model(variant: Variant) -> str:
    """Return a key for a variant's model, and how it is loaded and called."""
    return _row(replace(variant, threads=None, setting="", devices=(), budget=Budget()))


def _row(variant: Variant) -> str:
    """Return a key for what a variant and its original have in common."""
    return repr(replace(variant, method="", chain=(), interleave=False, requires={}))
