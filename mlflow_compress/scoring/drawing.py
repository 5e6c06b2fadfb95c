"""Bootstrap: draw as many samples with replacement as there are, many times, and sum up their statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

RESAMPLES = 1000
_AT_ONCE = 2**22  # drawn samples in memory
_ALIKE = 4  # minimum number of rows per distinct row, for counting distinct rows to be faster
_EXACT = 2**53  # up to this number, float64 represents every integer

Progress = Callable[[int, int | None, float | None], object]
Summing = Callable[["Drawing"], Any]


def silent(done: int, total: int | None, seconds_left: float | None) -> None:
    """Report no progress."""


def drawn_sums(tables: Sequence[Any], seed: int, progress: Progress = silent) -> list[Any]:
    """Sum up the statistics of samples drawn with replacement.

    Args:
        tables: arrays [samples, statistics], all of the same samples.
        seed: seed for drawing.
        progress: called with the number of resamples done, their total, and the estimated seconds left.

    Returns:
        For each table the sums [resamples, statistics].
    """
    import numpy as np

    functions = [_summing(table) for table in tables]
    sums: list[list[Any]] = [[] for _ in tables]
    done, started = 0, time.monotonic()
    for drawing in drawings(len(tables[0]), seed):
        for table_sums, sum_drawing in zip(sums, functions, strict=True):
            table_sums.append(sum_drawing(drawing))
        done += len(drawing.samples)
        progress(done, RESAMPLES, (time.monotonic() - started) / done * (RESAMPLES - done))
    return [np.concatenate(table_sums) for table_sums in sums]


class Drawing:
    """Some resamples.

    Args:
        samples: indices of the drawn samples [resamples, samples].
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    @cached_property
    def counts(self) -> Any:
        """How often each sample is drawn: float64 [resamples, samples]."""
        import numpy as np

        return _counted(self.samples, self.samples.shape[1]).astype(np.float64)


def drawings(count: int, seed: int, times: int | None = None) -> Iterator[Drawing]:
    """Draw `times` resamples (None: `RESAMPLES`) of `count` samples, as many at once as memory allows."""
    import numpy as np

    times = RESAMPLES if times is None else times
    generator = np.random.default_rng(seed)
    rows = max(1, min(times, _AT_ONCE // count))
    for start in range(0, times, rows):
        yield Drawing(generator.integers(0, count, (min(rows, times - start), count)))


def swapped_sums(own: Any, original: Any, seed: int) -> Iterator[tuple[Any, Any]]:
    """Swap two models' answers for each sample at random, and sum up their statistics, `RESAMPLES` times.

    Args:
        own: a model's statistics [samples, statistics].
        original: the other model's statistics, of the same samples.
        seed: seed for swapping.

    Yields:
        The sums [statistics] of both models after swapping.
    """
    import numpy as np

    changed = np.flatnonzero((own != original).any(axis=1))
    moved, base, total = (own - original)[changed], original.sum(axis=0), own.sum(axis=0) + original.sum(axis=0)
    generator = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _AT_ONCE // max(1, len(changed))))
    for start in range(0, RESAMPLES, rows):
        coins = generator.integers(0, 2, (min(rows, RESAMPLES - start), len(changed))).astype(np.float64)
        for sums in base + coins @ moved:
            yield sums, total - sums


def _summing(table: Any) -> Summing:
    """Return the fastest function that sums up the drawn samples' statistics [samples, statistics].

    Statistics that count things have few distinct rows: then it is enough to count how often each distinct row is
    drawn. Sums of integers are exact in any order, so both functions give the same result.
    """
    kinds = _kinds(table)
    if kinds is None:
        return lambda drawing: drawing.counts @ table
    rows, kind_of = kinds
    return lambda drawing: _counted(kind_of[drawing.samples], len(rows)) @ rows


def _kinds(table: Any) -> tuple[Any, Any] | None:
    """Return the distinct rows of a table, and the index of each row's distinct row.

    None if they are not integers, if their sums may be too large to be exact, or if most rows differ.
    """
    import numpy as np

    count, width = table.shape
    weights = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64)
    keys = np.zeros(count, dtype=np.uint64)  # equal rows have equal keys; by column, to save memory
    for column, weight in zip(table.T, weights, strict=True):
        if np.abs(column).max(initial=0) * count >= _EXACT:
            return None
        integers = column.astype(np.int64)
        if (integers != column).any():
            return None
        keys += integers.astype(np.uint64) * weight
    _, first, kind_of = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) > count // _ALIKE:
        return None
    if any((column[first][kind_of] != column).any() for column in table.T):
        return None  # two different rows have the same key
    return table[first], kind_of.astype(np.min_scalar_type(len(first)))


def _counted(samples: Any, kinds: int) -> Any:
    """Count how often each number below `kinds` occurs in each row: [rows, kinds]."""
    import numpy as np

    places = samples + kinds * np.arange(len(samples))[:, None]
    return np.bincount(places.ravel(), minlength=len(samples) * kinds).reshape(len(samples), kinds)
