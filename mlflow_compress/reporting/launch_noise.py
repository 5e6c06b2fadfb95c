"""Estimates how far a latency may be from that of other launches: from its own launches, or from earlier runs.

A launch is one fresh process. A run with one launch does not show the noise between launches. But the store may hold
earlier runs of the same variant on the same machine with the same work, and each of these is one more launch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from mlflow_compress.budget import FEWEST_LAUNCHES
from mlflow_compress.percentiles import LogError, error_of_launches
from mlflow_compress.records import Run
from mlflow_compress.reporting import circumstances

# Logged values may be anything: nobody launches more often, and no launches spread by a factor of 20.
MOST_LAUNCHES = 1000
_WIDEST_SPREAD = math.log(20)
_MEDIANS_MS = (1e-12, 1e15)
_ENOUGH = 50  # limit of earlier runs, so that a table of every run stays quick


def of(run: Run, device: str, others: Iterable[Run] = ()) -> LogError | None:
    """Return the error of a run's latency on a device, as the mean over its launches; None where it is unknown.

    Args:
        run: the run.
        device: `cpu` or `gpu`.
        others: runs of the same variant, which give the spread where this run has one launch. Those under other
            circumstances do not count. Runs with one launch form a sample; runs with several launches add their spread.
    """
    launches = _count(run, device)
    if launches >= FEWEST_LAUNCHES and (spread := _spread(run, device)) > 0:
        return error_of_launches(spread, launches)
    squares, degrees = 0.0, 0
    medians = {_median(run, device)}  # a set: a result that was logged twice counts once
    earlier_launches: set[tuple[int, float, float]] = set()
    own_circumstances = circumstances.of(run, device)
    for other in islice(others, _ENOUGH):
        if other.run_id == run.run_id or circumstances.of(other, device) != own_circumstances:
            continue
        count, spread, median = _count(other, device), _spread(other, device), _median(other, device)
        if count >= FEWEST_LAUNCHES and spread > 0:
            earlier_launches.add((count, spread, median))
        elif count == 1:
            medians.add(median)
    for count, spread, _ in earlier_launches:
        squares, degrees = squares + spread**2 * (count - 1), degrees + count - 1
    logarithms = [math.log(median) for median in medians if median > 0]
    if launches == 1 and len(logarithms) > 1:
        mean = math.fsum(logarithms) / len(logarithms)
        squares += math.fsum((logarithm - mean) ** 2 for logarithm in logarithms)
        degrees += len(logarithms) - 1
    if degrees < FEWEST_LAUNCHES - 1 or squares == 0:
        return None
    return LogError(math.sqrt(squares / degrees / launches), degrees)


def _count(run: Run, device: str) -> int:
    """Return the number of launches behind a latency; 1 where the run does not record it."""
    count = run.metrics.get(f"{device}/launches", 1.0)
    return int(count) if 1 <= count <= MOST_LAUNCHES else 1


def _spread(run: Run, device: str) -> float:
    spread = run.metrics.get(f"{device}/latency_launch_sd", 0.0)
    return spread if 0 < spread <= _WIDEST_SPREAD else 0.0


def _median(run: Run, device: str) -> float:
    median = run.metrics.get(f"{device}/latency_p50_ms", 0.0)
    return median if _MEDIANS_MS[0] <= median <= _MEDIANS_MS[1] else 0.0
