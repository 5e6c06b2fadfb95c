"""Measure the latency of one call.

Covers: wall time of each call, on a monotonic nanosecond clock, synchronised with the device; on CUDA and XPU also the
device's own time between two events. Stages inside the call, by marks, on an accelerator by its events. Warm-up is
separate.
Does not cover: queueing, concurrency, load time.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from mlflow_compress.percentiles import interval, launch_interval, launch_mean, launch_spread, percentile
from mlflow_compress.records import Budget
from mlflow_compress.sockets import Mark
from mlflow_compress.torch_devices import CPU

_STABLE_WINDOW = 3
_STABLE_SPREAD = 0.05
_TAILS = (90, 95, 99)  # percentiles

_FEWEST_IN_ROUND, _LONGEST_OF_FEWEST_MS = 3, 100.0  # calls, unless they take longer
_REFILLED_MS = 20.0  # shorter calls get an extra call first: cold caches after the other process cost about 0.5 ms
_SHORTEST_MS = 1e-6  # of a call, if the clock does not advance

Turn = Callable[[int, float, float], float]
Progress = Callable[[int, int | None, float | None], None]


@dataclass
class Timing:
    """All timings in milliseconds, in the order of the calls.

    Attributes:
        wall_ms: Each call on the wall clock.
        events_ms: Each call between events of the device; empty on the CPU, and on MPS, whose events the CPU stamps.
        stages_ms: Each stage inside the calls; a stage that runs n times in a call has n numbers.
        warmup_ms: The warm-up calls before the timed ones.
        settled: Whether the warm-up ended because the latency was stable.
        round_sizes: Number of calls in each round, if made in turns with another process.
        launch_sizes: Number of calls in each launch, if several were combined; empty for one launch.
    """

    wall_ms: list[float] = field(default_factory=list)
    events_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    warmup_ms: list[float] = field(default_factory=list)
    settled: bool = False
    round_sizes: list[int] = field(default_factory=list)
    launch_sizes: list[int] = field(default_factory=list)

    @property
    def launch_medians_ms(self) -> list[float]:
        """The median of each launch's calls."""
        return [percentile(calls, 50) for calls in parts(self.wall_ms, self.launch_sizes or [len(self.wall_ms)])]


def measure(
    call: Callable[[Mark], object],
    device: str,
    budget: Budget,
    progress: Progress,
    warmed: Callable[[], object] = lambda: None,
    turn: Turn | None = None,
    share: Callable[[float], Budget] | None = None,
) -> Timing:
    """Warm up until the latency is stable, then time calls until the budget is used.

    The garbage collector is off in this time. All calls are kept, except an extra call before each round of short calls
    in turns.

    Args:
        call: Makes one call, and marks the end of each stage inside it.
        device: `cpu`, `cuda`, `mps` or `xpu`.
        budget: When to stop.
        progress: Called with the calls done, the maximum number of calls, and the seconds left if known.
        warmed: Called once between warm-up and timing.
        turn: Called before each round with the calls made, their seconds, and the milliseconds of one call. It returns
            the milliseconds of the round; 0 ends the timing. With it, the budget does not decide when to stop.
        share: Called after the warm-up with the milliseconds of one call. It returns the budget of the timed calls;
            None: the whole budget.
    """
    stopwatch = _stopwatch(device)
    timing = Timing()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        _warm_up(call, stopwatch, budget, timing, progress)
        warmed()
        call_ms = max(percentile(timing.warmup_ms[-2 * _STABLE_WINDOW :], 50), _SHORTEST_MS)
        if turn is None:
            _count(call, stopwatch, share(call_ms) if share else budget, timing, progress)
        else:
            _take_turns(call, stopwatch, timing, turn, call_ms)
    finally:
        if collecting:
            gc.enable()
    return timing


def time_once(call: Callable[[], object], device: str) -> float:
    """Return the milliseconds of one call, until the device has finished it."""
    stopwatch = _stopwatch(device)
    wall_ms, _, _ = stopwatch.time(unmarked(call))
    return wall_ms


def unmarked(call: Callable[[], object]) -> Callable[[Mark], object]:
    """Wrap a call without stages for `measure`."""
    return lambda mark: call()


def brief(budget: Budget) -> Budget:
    """Return a budget for the stages around the timed call: the same number of calls, a tenth of the time."""
    return dataclasses.replace(
        budget,
        min_seconds=budget.min_seconds / 10,
        max_seconds=budget.max_seconds / 10,
        warmup_max_seconds=budget.warmup_max_seconds / 10,
    )


def _warm_up(call: Any, stopwatch: Any, budget: Budget, timing: Timing, progress: Progress) -> None:
    """Call until the medians of two consecutive windows differ by at most 5 %, or until time is up.

    Even if the latency is stable, a minimum time lets clocks and allocators settle.
    """
    started = time.monotonic()
    warmup_ms = timing.warmup_ms
    while True:
        wall, _, _ = stopwatch.time(call)
        warmup_ms.append(wall)
        progress(len(warmup_ms), None, None)
        elapsed = time.monotonic() - started
        if len(warmup_ms) >= 2 * _STABLE_WINDOW and elapsed >= budget.warmup_min_seconds:
            now = percentile(warmup_ms[-_STABLE_WINDOW:], 50)
            previous = percentile(warmup_ms[-2 * _STABLE_WINDOW : -_STABLE_WINDOW], 50)
            if abs(now - previous) <= _STABLE_SPREAD * previous:
                timing.settled = True
                return
        if elapsed >= budget.warmup_max_seconds and len(warmup_ms) > 1:
            return


def _count(call: Any, stopwatch: Any, budget: Budget, timing: Timing, progress: Progress) -> None:
    started = time.monotonic()
    while True:
        _once(call, stopwatch, timing)
        count, elapsed = len(timing.wall_ms), max(time.monotonic() - started, 1e-9)
        if count >= budget.min_iterations and elapsed >= budget.min_seconds:
            return
        if count >= budget.fewest_iterations and elapsed >= budget.max_seconds:
            return
        target_count = max(budget.min_iterations, round(budget.min_seconds / (elapsed / count)))
        left = min((target_count - count) * elapsed / count, max(budget.max_seconds - elapsed, 0))
        progress(count, target_count, left)


def _take_turns(call: Any, stopwatch: Any, timing: Timing, turn: Turn, call_ms: float) -> None:
    while (round_ms := turn(len(timing.wall_ms), sum(timing.wall_ms) / 1000, call_ms)) > 0:
        size = max(1, round(max(round_ms, min(_FEWEST_IN_ROUND * call_ms, _LONGEST_OF_FEWEST_MS)) / call_ms))
        if call_ms <= _REFILLED_MS:
            stopwatch.time(call)
        for _ in range(size):
            _once(call, stopwatch, timing)
        timing.round_sizes.append(size)


def _once(call: Any, stopwatch: Any, timing: Timing) -> None:
    wall, events, stages = stopwatch.time(call)
    timing.wall_ms.append(wall)
    if events is not None:
        timing.events_ms.append(events)
    for name, milliseconds in stages:
        timing.stages_ms.setdefault(name, []).append(milliseconds)


def _stopwatch(device: str) -> _Wall | _Accelerator:
    return _Wall() if device == CPU else _Accelerator(device)


class _Wall:
    """Times calls on the CPU."""

    def time(self, call: Callable[[Mark], object]) -> tuple[float, None, list[tuple[str, float]]]:
        marks: list[tuple[str, int]] = []
        clock = time.perf_counter_ns
        start = clock()
        call(lambda stage: marks.append((stage, clock())))
        end = clock()
        return (end - start) / 1e6, None, _between(start, marks)


class _Accelerator:
    """Times calls on an accelerator: with events on the stream, and on the wall clock between two synchronisations."""

    def __init__(self, device: str) -> None:
        import torch

        self._new_event: Any = torch.get_device_module(device).Event
        self._synchronise: Any = torch.accelerator.synchronize
        self._stamps_events = device != "mps"

    def time(self, call: Callable[[Mark], object]) -> tuple[float, float | None, list[tuple[str, float]]]:
        marks: list[tuple[str, Any]] = []

        def mark(stage: str) -> None:
            marks.append((stage, self._event()))

        self._synchronise()
        start_ns = time.perf_counter_ns()
        start = self._event()
        call(mark)
        end = self._event() if self._stamps_events else None
        self._synchronise()
        wall = (time.perf_counter_ns() - start_ns) / 1e6
        stages, previous = [], start
        for stage, event in marks:
            stages.append((stage, float(previous.elapsed_time(event))))
            previous = event
        return wall, None if end is None else float(start.elapsed_time(end)), stages

    def _event(self) -> Any:
        event = self._new_event(enable_timing=True)
        event.record()
        return event


def _between(start: int, marks: list[tuple[str, int]]) -> list[tuple[str, float]]:
    starts = [start, *(time_ns for _, time_ns in marks)]
    return [(stage, (time_ns - start_ns) / 1e6) for start_ns, (stage, time_ns) in zip(starts, marks, strict=False)]


def parts(samples: Sequence[float], sizes: Sequence[float]) -> list[Sequence[float]]:
    """Split samples into consecutive parts of these sizes: launches, or rounds."""
    ends = [round(end) for end in accumulate(sizes)]
    return [samples[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def numbers(timing: Timing, group: str, batch_size: int) -> dict[str, float]:
    """Return the metrics of a timing.

    The median has a confidence interval for three or more launches; with one launch its noise is unknown. A higher
    percentile is included only if all calls together give it a 95 % confidence interval. That interval ignores the
    noise between launches, so no comparison is based on it.

    Args:
        timing: The timings.
        group: `cpu` or `gpu`, the first part of the metric names.
        batch_size: Samples in one call.
    """
    wall = timing.wall_ms
    metrics = {
        f"{group}/latency_mean_ms": sum(wall) / len(wall),
        f"{group}/latency_min_ms": min(wall),
        f"{group}/latency_max_ms": max(wall),
        **_middle(timing.launch_medians_ms, group),
        f"{group}/latency_count": float(len(wall)),
        f"{group}/warmup_count": float(len(timing.warmup_ms)),
        f"{group}/throughput_per_s": batch_size * len(wall) / sum(wall) * 1000,
    }
    for rank in _TAILS:
        if (bounds := interval(wall, rank)) is not None:
            metrics[f"{group}/latency_p{rank}_ms"] = percentile(wall, rank)
            metrics[f"{group}/latency_p{rank}_low_ms"], metrics[f"{group}/latency_p{rank}_high_ms"] = bounds
    if timing.events_ms:
        metrics[f"{group}/latency_events_p50_ms"] = percentile(timing.events_ms, 50)
    for stage, samples in timing.stages_ms.items():
        metrics[f"{group}/{stage}_p50_ms"] = percentile(samples, 50)
    return metrics


def _middle(medians: Sequence[float], group: str) -> dict[str, float]:
    """Return the metrics of the median latency: the mean of the launches' medians, and their spread."""
    if len(medians) == 1:
        return {f"{group}/latency_p50_ms": medians[0], f"{group}/launches": 1.0}
    metrics = {f"{group}/latency_p50_ms": launch_mean(medians), f"{group}/launches": float(len(medians))}
    if (spread := launch_spread(medians)) is not None:
        metrics[f"{group}/latency_launch_sd"] = spread
    if (bounds := launch_interval(medians)) is not None:
        metrics[f"{group}/latency_p50_low_ms"], metrics[f"{group}/latency_p50_high_ms"] = bounds
    return metrics


def samples(timing: Timing, group: str) -> dict[str, list[float]]:
    """Return all samples by name, in milliseconds, in the order of the calls."""
    series = {f"{group}/latency_ms": timing.wall_ms, f"{group}/warmup_ms": timing.warmup_ms}
    if timing.events_ms:
        series[f"{group}/latency_events_ms"] = timing.events_ms
    if timing.round_sizes:
        series[f"{group}/round_sizes"] = [float(size) for size in timing.round_sizes]
    if timing.launch_sizes:
        series[f"{group}/launch_sizes"] = [float(size) for size in timing.launch_sizes]
    return series | {f"{group}/{stage}_ms": values for stage, values in timing.stages_ms.items()}
