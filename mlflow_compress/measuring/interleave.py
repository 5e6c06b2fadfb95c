"""`alternate`: measures a variant and its original in turns, so that what disturbs one disturbs both.

On a machine that others use too, two latencies measured one after the other differ by what happened meanwhile. Here
both models are in memory, each in a process of its own; one makes some calls while the other waits, and then the other
way round. Each round gives one ratio.

Source: paired design; Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters.timeline import Timeline
from mlflow_compress.percentiles import interval, percentile
from mlflow_compress.records import Budget, Outcome, Part, Variant, metric_group

Listener = Callable[[Mapping[str, Any]], None]

_FEWEST_ROUNDS = 10


def alternate(
    variant: Variant,
    folder: Path,
    original: Variant,
    original_folder: Path,
    device: str,
    score: bool,
    listener: Listener,
) -> Part:
    """Measure both on a device in turns.

    Args:
        variant: what is measured.
        folder: its folder, prepared.
        original: what it is measured against.
        original_folder: the original's folder, prepared.
        device: `cpu` or `cuda`.
        score: whether the variant's quality is scored too.
        listener: told of the events of both.

    Returns:
        The variant's part; beside its own numbers `latency_ratio`, its 95 % interval and the number of rounds.
    """
    group = metric_group(device)
    try:
        with Worker("measure", original, original_folder, device) as base:
            base_events = Turns(base, listener)
            if not base_events.wait():
                return _failed(base.part())
            with Worker("measure", variant, folder, device, score) as own, Timeline(own.pid) as timeline:
                own_events = Turns(own, listener)
                if not own_events.wait():
                    return own.part()
                while not _enough(variant.budget, own_events, base_events):
                    for turns in (base_events, own_events):
                        turns.go()
                base_events.finish()
                own_events.finish()
                base_part, own_part = base.part(), own.part()
    except (WorkerError, OSError) as error:  # OSError: the disk is full
        return Part(Outcome("failed", str(error)))
    if base_part.outcome.status != "ok":
        return _failed(base_part)
    if own_part.outcome.status != "ok":
        return own_part
    try:
        numbers = _ratio(own_part.samples, base_part.samples, group)
        samples = {f"{group}/original_latency_ms": base_part.samples[f"{group}/latency_ms"]}
    except (LookupError, ValueError, ArithmeticError):  # the model's own code may have written the part
        return Part(Outcome("failed", "measure left no latencies of the rounds"))
    return dataclasses.replace(
        own_part,
        measurements={**own_part.measurements, **numbers},
        samples={**own_part.samples, **samples, **timeline.samples(group)},
    )


class Turns:
    """A worker that waits for its turns."""

    def __init__(self, worker: Worker, listener: Listener) -> None:
        self._worker = worker
        self._events: Iterator[Mapping[str, Any]] = worker.events()
        self._listener = listener
        self.rounds = 0
        self.count = 0
        self.seconds = 0.0
        self.alive = True

    def wait(self) -> bool:
        """Wait until it waits; False when it ended instead."""
        for event in self._events:
            if "turn" in event:
                self.count, self.seconds = event["turn"]["count"], event["turn"]["seconds"]
                return True
            self._listener(event)
        self.alive = False
        return False

    def go(self) -> None:
        """Let it make one round of calls."""
        self._worker.tell("go")
        self.rounds += 1
        self.wait()

    def finish(self) -> None:
        """Let it do the rest, and wait for its end."""
        self._worker.tell("end")
        for event in self._events:
            self._listener(event)


def _enough(budget: Budget, own: Turns, base: Turns) -> bool:
    if not (own.alive and base.alive):
        return True
    if own.rounds < _FEWEST_ROUNDS:
        return False
    counts, seconds = (own.count, base.count), (own.seconds, base.seconds)
    full = min(counts) >= budget.min_iterations and min(seconds) >= budget.min_seconds
    return full or max(seconds) >= budget.max_seconds


def _ratio(own: Mapping[str, list[float]], base: Mapping[str, list[float]], group: str) -> dict[str, float]:
    """Return the median over the rounds of the ratio of the two medians of a round, and its 95 % interval."""
    ratios = [
        percentile(a, 50) / percentile(b, 50)
        for a, b in zip(rounds_of(own, group), rounds_of(base, group), strict=False)
    ]
    found = {f"{group}/latency_ratio": percentile(ratios, 50), f"{group}/rounds": float(len(ratios))}
    if (bounds := interval(ratios, 50)) is not None:
        found[f"{group}/latency_ratio_low"], found[f"{group}/latency_ratio_high"] = bounds
    return found


def rounds_of(samples: Mapping[str, list[float]], group: str) -> Iterator[list[float]]:
    """Return the latencies of each round, in milliseconds."""
    start = 0
    for size in samples[f"{group}/round_sizes"]:
        yield samples[f"{group}/latency_ms"][start : start + int(size)]
        start += int(size)


def _failed(original: Part) -> Part:
    """Say that the original stood in the way."""
    reason = f"the original, measured in turns with it: {original.outcome.reason}"
    return Part(dataclasses.replace(original.outcome, reason=reason))
