"""`time_call`: time one call and judge the result. Workers and notebooks both use it, so that their numbers agree."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mlflow_compress.measuring import checks
from mlflow_compress.meters import accelerators, energy, environment, gpu, latency, usage
from mlflow_compress.meters.memory import MemoryMeter
from mlflow_compress.percentiles import percentile
from mlflow_compress.records import Budget, Caution, Outcome, Part, metric_group
from mlflow_compress.sockets import Mark
from mlflow_compress.sockets import Reporter as StageReporter

LAUNCHES = "launches"  # a fact of a part: the number of launches that share the budget


def _no_rates(latency_ms: float, stages_ms: Mapping[str, float]) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class TimedCall:
    """The call that is timed.

    Attributes:
        run: Makes one call on one batch, and marks the end of each stage inside it.
        device: Device it runs on: `cpu`, `cuda`, `mps` or `xpu`.
        batch_size: Samples in one call.
        around: Returns the calls before and after it that are timed separately, by name. It is called after the
            timing, because their inputs need memory.
        rates: Computes further metrics from the median latency and the medians of its stages, all in milliseconds.
        warmed: Called between warm-up and timing, when the memory of the warm-up is known.
        runtime: Distribution whose engine executes it: it decides whether torch's allocator or the driver reports the
            GPU memory.
        first_calls: Number of calls after which everything is created that is created on demand: a compiled model
            compiles kernels in its second call.
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
        """Return the first part of its metrics' names."""
        return metric_group(self.device)


class Reporter(StageReporter, Protocol):
    """Receives the progress of the timing."""

    def turn(self, count: int, seconds: float, call_ms: float) -> float:
        """Wait for the turn, in a measurement in turns with another process.

        Args:
            count: Calls timed so far.
            seconds: Seconds that they took.
            call_ms: Milliseconds of one call; 0 before that is known.

        Returns:
            The milliseconds of the turn; 0 if there are no more turns.
        """


class Silent:
    """A reporter that reports nothing."""

    def stage(self, name: str) -> None:
        """Do nothing."""

    def progress(self, done: int, total: int | None, seconds_left: float | None) -> None:
        """Do nothing."""

    def turn(self, count: int, seconds: float, call_ms: float) -> float:
        """Raise: a silent reporter is never used for a measurement in turns."""
        raise NotImplementedError


def time_call(
    call: TimedCall,
    budget: Budget,
    memory: MemoryMeter,
    reporter: Reporter,
    in_turns: bool = False,
    ready: Callable[[], float] | None = None,
) -> Part:
    """Time a call, the stages around it and its energy, and measure the memory meanwhile.

    Args:
        call: The timed call. Its first call is timed separately: libraries choose kernels in it, and compile.
        budget: When to stop.
        memory: Memory meter, whose phases `warmup`, `run` and `around` are ended here.
        reporter: Receives the progress.
        in_turns: Whether the reporter decides when to make calls, and when to stop.
        ready: Returns the seconds since this process began; then further launches may get a share of the budget. None:
            this is the only launch.

    Returns:
        A part with the numbers, the samples in milliseconds, the cautions, the number of threads, and the source of the
        GPU memory (`vram_source`). Its fact `launches` is the number of launches that share the budget; the code that
        combines the launches checks the number of calls.
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
        with watch if call.device == "cuda" else contextlib.nullcontext():
            timing, used = _timed(call, budget, memory, reporter, in_turns, share)
        clocks = checks.clock(None if group == "gpu" else usage.clock_share(), ", ".join(watch.slowed))
        stages_ms = _around(call, budget, reporter)
        memory.end_phase("around")  # before computing: our own statistics need memory, too
        numbers = {**_numbers(call, timing, stages_ms), f"{group}/first_call_ms": first_ms}
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
    vram_numbers, facts = _vram(call, watch)
    numbers |= memory.numbers(group) | vram_numbers
    facts[LAUNCHES] = str(launches)
    samples = latency.samples(timing, group) | {f"{group}/{stage}_ms": wall for stage, wall in stages_ms.items()}
    return Part(Outcome("ok"), None, numbers, samples, tuple(cautions), {"threads": str(threads)}, facts)


def time_again(call: TimedCall, budget: Budget, reporter: Reporter, in_turns: bool, launches: int) -> Part:
    """Time only a launch's share of the calls.

    Args:
        call: The timed call.
        budget: Budget of all launches.
        reporter: Receives the progress.
        in_turns: Whether the reporter decides when to make calls, and when to stop.
        launches: Number of launches that share the budget.
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
    """Make the first calls, and return their milliseconds, including loading, kernel selection and compilation."""
    if in_turns:
        reporter.turn(0, 0.0, 0.0)  # both processes restore at the same time, but warm up one after the other
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
    """Return the samples of the call, and the resources that the timed calls used."""
    readings = []

    def warmed() -> None:
        memory.end_phase("warmup")
        call.warmed()
        reporter.stage(f"timing on {call.group}")
        readings.append(usage.now())

    turn = reporter.turn if in_turns else None
    timing = latency.measure(call.run, call.device, budget, reporter.progress, warmed, turn, share)
    # without the wall time between calls, which is long in a measurement in turns
    used = dataclasses.replace(usage.now() - readings[0], wall_s=sum(timing.wall_ms) / 1000)
    memory.end_phase("run")
    return timing, used


def _vram(call: TimedCall, watch: gpu.Watch) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics of the GPU memory, and their source."""
    if call.group != "gpu":
        return {}, {}
    is_torchs = call.runtime == "torch"
    if call.device == "cuda":
        vram, source = gpu.numbers(call.group, watch, is_torchs)
        return vram, {"vram_source": source or "unknown: the driver does not report the memory of this process"}
    vram, source = gpu.accelerator_numbers(call.device, is_torchs)
    engine = environment.runtime(call.runtime)
    return vram, {"vram_source": source or f"unknown: {engine} reports no peak on {call.device}"}


def _around(call: TimedCall, budget: Budget, reporter: Reporter) -> dict[str, list[float]]:
    """Time the calls before and after the timed call; return their milliseconds by name."""
    stages_ms = {}
    for stage, stage_call in call.around().items():
        reporter.stage(f"timing {stage}")
        timing = latency.measure(latency.unmarked(stage_call), call.device, latency.brief(budget), reporter.progress)
        stages_ms[stage] = timing.wall_ms
    return stages_ms


def _numbers(call: TimedCall, timing: latency.Timing, stages_ms: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the metrics of the latency, of the rates, and of the stages around the call."""
    group = call.group
    numbers = latency.numbers(timing, group, call.batch_size)
    medians = {stage: numbers[f"{group}/{stage}_p50_ms"] for stage in timing.stages_ms}
    rates = call.rates(numbers[f"{group}/latency_p50_ms"], medians)
    numbers |= {f"{group}/{name}": value for name, value in rates.items()}
    return numbers | {f"{group}/{stage}_p50_ms": percentile(wall, 50) for stage, wall in stages_ms.items()}


def _energy(call: TimedCall, budget: Budget) -> tuple[dict[str, float], list[Caution]]:
    """Return the metrics of the energy per sample, and the cautions."""

    def synchronise() -> None:
        accelerators.synchronise(call.device)

    index = gpu.index() if call.device == "cuda" else None
    reading = energy.measure(lambda: call.run(lambda stage: None), synchronise, budget.energy_seconds, index)
    return energy.numbers(reading, call.group, call.batch_size), checks.energy(reading)
