"""Metrics of items that are pooled over all samples (`PooledMetric`), recomputed for drawn samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from mlflow_compress.scoring.drawing import Progress, drawings, silent
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import PooledMetric

RESAMPLES = 300  # fewer than for sums, since each one takes longer


class Pool:
    """The items that several metrics share, and their summaries for drawn samples.

    Args:
        metric: one of these metrics.
        statistics: the result of its `items`, which caches summaries for the other metrics.

    Raises:
        ValueError: the items are not valid.
    """

    def __init__(self, metric: PooledMetric, statistics: Statistics) -> None:
        self.statistics = statistics
        self.samples = _samples_of(statistics.values)
        self._metric = metric

    @classmethod
    def of(cls, metric: PooledMetric, references: Sequence[Any], predictions: Sequence[Any]) -> Pool:
        """Return the pool of a metric's predictions."""
        names = metric.item_names(references, predictions)
        return cls(metric, Statistics(metric.items(references, predictions), names))

    def whole(self) -> Any:
        """Summarise all samples, each once."""
        import numpy as np

        cache = self.statistics.summaries
        if None not in cache:
            cache[None] = self._summarize(np.ones(self.samples, dtype=np.int64))
        return cache[None]

    def drawn(self, seed: int, progress: Progress = silent) -> Sequence[Any]:
        """Summarise drawn samples, `RESAMPLES` times; equal seeds and numbers of samples draw the same samples."""
        cache = self.statistics.summaries
        if seed not in cache:
            cache[seed] = list(self._draw(seed, progress))
        summaries: Sequence[Any] = cache[seed]
        return summaries

    @cached_property
    def _summarize(self) -> Callable[[Any], Any]:
        names = self.statistics.columns
        return self._metric.summarizer(self.statistics.values, *([names] if names else []))

    def _draw(self, seed: int, progress: Progress) -> Iterator[Any]:
        import numpy as np

        done, started = 0, time.monotonic()
        for drawing in drawings(self.samples, seed, RESAMPLES):
            for times in drawing.counts.astype(np.int64):
                yield self._summarize(times)
                done += 1
                progress(done, RESAMPLES, (time.monotonic() - started) / done * (RESAMPLES - done))


def _samples_of(items: Any) -> int:
    """Return the number of samples that items belong to.

    Raises:
        ValueError: samples are not numbered from 0, or one has no item.
    """
    import numpy as np

    samples = np.unique(items[:, 0])
    if not len(samples) or (samples != np.arange(len(samples))).any():
        raise ValueError("these statistics do not belong to samples numbered from 0")
    return len(samples)
