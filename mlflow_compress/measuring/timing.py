"""`time_call`: times one call, and judges what it saw. A worker and a notebook both do it here, so that they agree."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mlflow_compress.measuring import checks
from mlflow_compress.meters import energy, gpu, latency, usage
from mlflow_compress.meters.memory import MemoryMeter
from mlflow_compress.percentiles import percentile
from mlflow_compress.records import Budget, Caution, Outcome, Part, metric_group
from mlflow_compress.sockets import Mark

LAUNCHES = "launches"  # a fact of a part: among how many launches the budget is split


def _no_rates(latency_ms: float, stages_ms: Mapping[str, float]) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class TimedCall:
    """What is timed.

    Attributes:
        run: makes one call on one batch, and marks the end of each stage inside it.
        device: `cpu` or `cuda`, where it runs.
        batch_size: samples in one call.
        around: makes the calls before and after it that are timed apart, by name. Asked for after the timing, since
            their inputs take memory.
        rates: makes further metrics of the median latency and the medians of its stages, both in milliseconds.
        warmed: called between warm-up and counting, when the memory of the warm-up is known.
        runtime: the distribution whose engine executes it: torch's allocator, or the driver, says what a GPU holds.
        first_calls: after how many calls all is there that is made when it is first needed: a compiled model makes its
            kernels in the second.
    """

    run: Callable[[Mark], object]
    device: str
    batch_size: int
    around: Callable[[], Mapping[str, Callable[[], object]]] = dict
    rates: Callable[[float, Mapping[str, float]], Mapping[str, float]] = _no_rates
    warmed: Callable[[], object] = lambda: None
    runtime: str = "torch"
    first_calls: int = 1

    @property
    def group(self) -> str:
        """Return what its metrics' names begin with."""
        return metric_group(self.device)


class Reporter(Protocol):
    """Whoever hears how far the timing is."""

    def stage(self, name: str) -> None:
        """Hear that a stage begins."""

    def progress(self, done: int, total: int | None, seconds_left: float | None) -> None:
        """Hear how far the stage is."""

    def turn(self, count: int, seconds: float, call_ms: float) -> float:
        """Wait for the turn, in a measurement in turns with another process.

        Args:
            count: calls that were timed so far.
            seconds: that they took.
            call_ms: milliseconds that a call takes; 0 before that is known.

        Returns:
            The milliseconds that the turn is to take; 0 when there are no more.
        """


class Silent:
    """A reporter that tells nobody."""

    def stage(self, name: str) -> None:
        """Do nothing."""

    def progress(self, done: int, total: int | None, seconds_left: float | None) -> None:
        """Do nothing."""

    def turn(self, count: int, seconds: float, call_ms: float) -> float:
        """Raise: whoever tells nobody takes no turns with anybody."""
        raise NotImplementedError


def time_call(
    call: TimedCall,
    budget: Budget,
    memory: MemoryMeter,
    reporter: Reporter,
    in_turns: bool = False,
    ready: Callable[[], float] | None = None,
) -> Part:
    """Time a call, the stages around it and its energy, and follow the memory meanwhile.

    Args:
        call: what is timed. Its first call is timed apart: libraries choose their kernels in it, and compile.
        budget: when to stop.
        memory: its phases `warmup`, `run` and `around` are ended here.
        reporter: told how far it is.
        in_turns: whether the reporter says when to make calls, and when to stop.
        ready: returns the seconds since this process began; then further launches may have their share of the budget.
            None: this is the only launch.

    Returns:
        A part with the numbers, the samples in milliseconds, what to be careful about, the number of threads, and whose
        figure the GPU's memory is (`vram_source`). Its fact `launches` says among how many launches the budget is
        split; whoever puts them together judges their count.
    """
    import torch

    group, threads, launches = call.group, torch.get_num_threads(), 1

    def share(call_ms: float) -> Budget:
        nonlocal launches
        launches = budget.launches_that_fit(restored_s, call_ms / 1000) if ready else 1
        return budget.share(launches)

    with torch.inference_mode():
        first_ms = _first(call, reporter, in_turns)
        restored_s = ready() if ready else 0.0
        watch = gpu.Watch()
        with watch if group == "gpu" else contextlib.nullcontext():
            timing, used = _timed(call, budget, memory, reporter, in_turns, share)
        clocks = checks.clock(None if group == "gpu" else usage.clock_share(), ", ".join(watch.slowed))
        apart = _around(call, budget, reporter)
        memory.end_phase("around")  # and only then compute: our own statistics take memory too
        numbers = {**_numbers(call, timing, apart), f"{group}/first_call_ms": first_ms}
        numbers |= usage.numbers(used, len(timing.wall_ms), threads, group)
        cautions = [
            *([] if ready else checks.few(len(timing.wall_ms), group)),
            *checks.timing(timing, group),
            *checks.usage(used, len(timing.wall_ms), threads, group),
            *checks.threads(threads),
            *clocks,
        ]
        if budget.energy_seconds > 0:
            reporter.stage("measuring energy")
            energy_numbers, energy_cautions = _energy(call, budget)
            numbers |= energy_numbers
            cautions += energy_cautions
    held, facts = _vram(call, watch)
    numbers |= memory.numbers(group) | held
    facts[LAUNCHES] = str(launches)
    samples = latency.samples(timing, group) | {f"{group}/{stage}_ms": wall for stage, wall in apart.items()}
    return Part(Outcome("ok"), None, numbers, samples, tuple(cautions), {"threads": str(threads)}, facts)


def time_again(call: TimedCall, budget: Budget, reporter: Reporter, in_turns: bool, launches: int) -> Part:
    """Time a launch's share of the calls, and nothing else.

    Args:
        call: what is timed.
        budget: of all launches.
        reporter: told how far it is.
        in_turns: whether the reporter says when to make calls, and when to stop.
        launches: among how many launches the budget is split.
    """
    import torch

    hurried = dataclasses.replace(budget, warmup_max_seconds=budget.warmup_max_seconds / launches)
    with torch.inference_mode():
        _first(call, reporter, in_turns)
        turn = reporter.turn if in_turns else None
        timing = latency.measure(
            call.run, call.device, hurried, reporter.progress, call.warmed, turn, lambda _: budget.share(launches)
        )
        numbers = _numbers(call, timing, {})
    cautions = tuple(checks.timing(timing, call.group))
    return Part(Outcome("ok"), None, numbers, latency.samples(timing, call.group), cautions)


def _first(call: TimedCall, reporter: Reporter, in_turns: bool) -> float:
    """Make the first calls, and return their milliseconds: with what is loaded, chosen and compiled in them."""
    if in_turns:
        reporter.turn(0, 0.0, 0.0)  # both restore at the same time, and warm up one after the other
    reporter.stage(f"warming up on {call.group}")
    return sum(latency.time_once(lambda: call.run(lambda stage: None), call.device) for _ in range(call.first_calls))


def _timed(
    call: TimedCall,
    budget: Budget,
    memory: MemoryMeter,
    reporter: Reporter,
    in_turns: bool,
    share: Callable[[float], Budget],
) -> tuple[latency.Timing, usage.Usage]:
    """Return the samples of the call, and what the counted calls used of the machine."""
    readings = []

    def warmed() -> None:
        memory.end_phase("warmup")
        call.warmed()
        reporter.stage(f"timing on {call.group}")
        readings.append(usage.now())

    turn = reporter.turn if in_turns else None
    timing = latency.measure(call.run, call.device, budget, reporter.progress, warmed, turn, share)
    # less the wall time between the calls, which in turns with another process is long
    used = dataclasses.replace(usage.now() - readings[0], wall_s=sum(timing.wall_ms) / 1000)
    memory.end_phase("run")
    return timing, used


def _vram(call: TimedCall, watch: gpu.Watch) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics of the GPU's memory, and whose figure it is."""
    if call.group != "gpu":
        return {}, {}
    held, source = gpu.numbers(call.group, watch, is_torchs=call.runtime == "torch")
    return held, {"vram_source": source or "unknown: the driver does not tell what this process holds"}


def _around(call: TimedCall, budget: Budget, reporter: Reporter) -> dict[str, list[float]]:
    """Time the calls before and after it; return their milliseconds by name."""
    apart = {}
    for stage, other in call.around().items():
        reporter.stage(f"timing {stage}")
        seen = latency.measure(latency.unmarked(other), call.device, latency.brief(budget), reporter.progress)
        apart[stage] = seen.wall_ms
    return apart


def _numbers(call: TimedCall, timing: latency.Timing, apart: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the metrics of the latency, of what the call makes of it, and of the stages around it."""
    group = call.group
    numbers = latency.numbers(timing, group, call.batch_size)
    middles = {stage: numbers[f"{group}/{stage}_p50_ms"] for stage in timing.stages_ms}
    rates = call.rates(numbers[f"{group}/latency_p50_ms"], middles)
    numbers |= {f"{group}/{name}": value for name, value in rates.items()}
    return numbers | {f"{group}/{stage}_p50_ms": percentile(wall, 50) for stage, wall in apart.items()}


def _energy(call: TimedCall, budget: Budget) -> tuple[dict[str, float], list[Caution]]:
    """Return the metrics of the energy of one sample, and what to be careful about."""
    import torch

    synchronise = torch.cuda.synchronize if call.device == "cuda" else lambda: None
    index = gpu.index() if call.device == "cuda" else None
    taken = energy.measure(lambda: call.run(lambda stage: None), synchronise, budget.energy_seconds, index)
    return energy.numbers(taken, call.group, call.batch_size), checks.energy(taken)
