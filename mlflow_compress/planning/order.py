"""In which order variants are measured, and which of them still fit into the time there is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mlflow_compress.budget import Budget
from mlflow_compress.records import Variant, to_json


def originals_first(variants: Sequence[Variant]) -> list[Variant]:
    """Put every original before the variants that are compared with it, and leave all else where it was.

    Scores are paired with an original's that was scored before.
    """
    keys = [_row(variant) for variant in variants]
    first = {key: at for at, key in reversed(list(enumerate(keys)))}

    def place(at: int) -> tuple[int, bool]:
        is_original = variants[at].is_original
        return (first[keys[at]] if is_original else at, not is_original)

    return [variants[at] for at in sorted(range(len(variants)), key=place)]


def most_informative_first(variants: Sequence[Variant]) -> list[Variant]:
    """Put every original first, the models in turn, then one variant of each method, then the next of each.

    Each method begins with another model, so that after few variants many methods and many models were seen. The same
    variants always come in the same order; what nothing tells apart stays in the order it was in.
    """
    models = _numbered((variant.team, variant.model) for variant in variants)
    methods = _numbered(variant.method for variant in variants if not variant.is_original)
    counts: Counter[tuple[int, int]] = Counter()
    places: dict[int, list[tuple[int, int, int]]] = {}  # by method; -1: the originals
    for at, variant in enumerate(variants):
        model = models[variant.team, variant.model]
        method = -1 if variant.is_original else methods[variant.method]
        turn = (model - max(method, 0)) % len(models)
        places.setdefault(method, []).append((counts[model, method], turn, at))
        counts[model, method] += 1
    originals = [at for *_, at in sorted(places.pop(-1, []))]
    others = [(number, method, at) for method, its in places.items() for number, (*_, at) in enumerate(sorted(its))]
    return [variants[at] for at in (*originals, *(at for *_, at in sorted(others)))]


def first_of_each_model(variants: Sequence[Variant]) -> list[Variant]:
    """Return one variant of each model, and of each way in which it is loaded and called."""
    found: dict[str, Variant] = {}
    for variant in variants:
        found.setdefault(_model(variant), variant)
    return list(found.values())


class Queue:
    """Variants that wait to be started, for as long as there is time.

    What does not fit into the time that is left is not started, and what comes after it may be; the first is started
    however long it takes.

    Attributes:
        left_out: what was taken out, since another variant of the same model showed that it would fail.

    Args:
        variants: in their order.
        seconds: estimates how long a variant takes. It is asked anew whenever one is to be started, so that what was
            learnt meanwhile counts.
        limit: seconds from now in which all is to be measured; None for no limit.
        clock: tells seconds; another in tests, and in plans.
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
        """Return what was not started."""
        return tuple(self._waiting)

    def take(self, serves: Callable[[Variant], bool] = lambda variant: True) -> Variant | None:
        """Return the next variant to start, and count it as started.

        Args:
            serves: says whether the machine that is free may measure a variant.

        Returns:
            None where nothing that waits fits, be it into the time or the machine.
        """
        for at, variant in enumerate(self._waiting):
            if serves(variant) and self._fits(variant):
                self._started += 1
                return self._waiting.pop(at)
        return None

    def put_back(self, variant: Variant) -> None:
        """Take back a variant that was started and came to nothing, such as on a machine that was lost; it is next."""
        self._waiting.insert(0, variant)

    def leave_out(self, failed: Variant, succeeded: Iterable[Variant]) -> None:
        """Take out what would fail as a variant did: its model can't be measured, whatever the method is.

        Args:
            failed: the variant.
            succeeded: variants that were measured. One of the same model shows that it can be: nothing is taken out.
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
    """Name the model that a variant is made of, and how it is loaded and called."""
    return _row(replace(variant, threads=None, setting="", devices=(), budget=Budget()))


def _row(variant: Variant) -> str:
    """Name what a variant and its original have in common."""
    return repr(to_json(replace(variant, method="", chain=(), interleave=False, requires={})))
