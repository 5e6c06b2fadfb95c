"""Metrics of things that are pooled over all samples (`PooledMetric`), made anew of drawn samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from mlflow_compress.scoring.drawing import Progress, drawings, silent
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import Metric, PooledMetric

RESAMPLES = 300  # fewer than there are of sums: each takes longer


class Pool:
    """The things that metrics share, and what summarises drawn samples of them.

    Args:
        metric: one of these metrics.
        statistics: what its `items` gave, which remembers what was made of it for the others.

    Raises:
        ValueError: they are no such things.
    """

    def __init__(self, metric: PooledMetric, statistics: Statistics) -> None:
        self.statistics = statistics
        self.samples = _samples_of(statistics.values)
        self._metric = metric

    def whole(self) -> Any:
        """Summarise all samples, each once."""
        import numpy as np

        made = self.statistics.summaries
        if None not in made:
            made[None] = self._summarize(np.ones(self.samples, dtype=np.int64))
        return made[None]

    def drawn(self, seed: int, progress: Progress = silent) -> Sequence[Any]:
        """Summarise drawn samples, `RESAMPLES` times; the same are drawn wherever the seed and their number are."""
        made = self.statistics.summaries
        if seed not in made:
            made[seed] = list(self._draw(seed, progress))
        summaries: Sequence[Any] = made[seed]
        return summaries

    @cached_property
    def _summarize(self) -> Callable[[Any], Any]:
        return self._metric.summarizer(self.statistics.values)

    def _draw(self, seed: int, progress: Progress) -> Iterator[Any]:
        import numpy as np

        done, started = 0, time.monotonic()
        for drawing in drawings(self.samples, seed, RESAMPLES):
            for times in drawing.counts.astype(np.int64):
                yield self._summarize(times)
                done += 1
                progress(done, RESAMPLES, (time.monotonic() - started) / done * (RESAMPLES - done))


def pools_of(metrics: Mapping[str, Metric], references: Sequence[Any], predictions: Sequence[Any]) -> dict[str, Pool]:
    """Return the pools of metrics that have one, by the pool's name."""
    pools: dict[str, Pool] = {}
    for metric in metrics.values():
        if isinstance(metric, PooledMetric) and metric.pool not in pools:
            pools[metric.pool] = Pool(metric, Statistics(metric.items(references, predictions)))
    return pools


def _samples_of(items: Any) -> int:
    """Return how many samples things are of.

    Raises:
        ValueError: samples are not numbered from 0 on, or one has nothing.
    """
    import numpy as np

    samples = np.unique(items[:, 0])
    if not len(samples) or (samples != np.arange(len(samples))).any():
        raise ValueError("these statistics are not of samples that are numbered from 0 on")
    return len(samples)
