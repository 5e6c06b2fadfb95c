"""A notebook measures like a worker: both time the same call with the same fake clock."""

from __future__ import annotations

import gc
import io
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from mlflow_compress import notebook
from mlflow_compress.measuring import launches, worker
from mlflow_compress.measuring.timing import Silent, TimedCall, time_again, time_call
from mlflow_compress.meters import latency, usage
from mlflow_compress.meters.latency import unmarked
from mlflow_compress.meters.memory import MemoryMeter
from mlflow_compress.meters.usage import Usage
from mlflow_compress.records import Budget, Part, Variant
from mlflow_compress.sockets import Mark, Model

BUDGET = Budget(min_iterations=12, min_seconds=0, energy_seconds=0)
VARIANT = Variant("m", "original", "t", "python", "m.py", batch_size=4, budget=BUDGET)


class Clock:
    """A fake `time`, which only advances in the calls; the first ones and one of the later ones take longer."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9


class Call:
    """Advances the clock, and records how it is called."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._milliseconds = itertools.chain([400.0, 90.0, 60.0, 40.0], itertools.cycle([20.0, 20.0, 20.0, 44.0]))
        self.seen: list[tuple[bool, bool]] = []

    def __call__(self) -> None:
        self.seen.append((gc.isenabled(), torch.is_inference_mode_enabled()))
        self._clock.now_ns += round(next(self._milliseconds) * 1e6)


class Family:
    """A fake family with this call."""

    timed, call_options = "one call", ()

    def __init__(self, call: Call) -> None:
        self._call = call

    def batch(self, model: object, size: int, seed: int) -> None: ...

    def run(self, model: object, batch: None, mark: Mark) -> None:
        self._call()

    def around(self, model: object, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        return {}

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        return {}


def as_worker(call: Call) -> Part:
    family: Any = Family(call)
    meter = MemoryMeter()
    meter.end_phase("load")
    part = worker._time(family, Model(None), "cpu", VARIANT, meter, worker.Report(io.StringIO()))
    return launches.together([launches.without_plan(part)], 1, (), "cpu", VARIANT.batch_size)


def as_notebook(call: Call) -> Part:
    return notebook._timed(call, VARIANT, "cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Install a fake clock, and a machine with interruptions by other programs and swapped pages."""
    fake = Clock()
    counts = itertools.count(1)

    def used() -> Usage:
        count = 10**6 * next(counts)
        return Usage(0.0, 0.0, switches=count, minor_faults=count, major_faults=count, throttled=0)

    monkeypatch.setattr(latency, "time", fake)
    monkeypatch.setattr(usage, "now", used)
    monkeypatch.setattr(usage, "clock_share", lambda: 0.4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    return fake


@pytest.mark.parametrize("measure", [as_worker, as_notebook])
def test_warm_up_and_counted_calls(clock: Clock, measure: Callable[[Call], Part]) -> None:
    call = Call(clock)
    collects = gc.isenabled()
    part = measure(call)
    # the first, of 400 ms, is not kept; the medians of calls 3 to 5 and 6 to 8 agree
    assert part.samples["cpu/warmup_ms"] == [90, 60, 40, 20, 20, 20, 44, 20]
    assert part.samples["cpu/latency_ms"] == [20, 20, 44, 20, 20, 20, 44, 20, 20, 20, 44, 20]
    assert len(call.seen) == 1 + 8 + 12
    assert set(call.seen[1:]) == {(False, True)}  # no garbage collector, no gradients
    assert call.seen[0] == (collects, True)
    assert gc.isenabled() == collects
    assert part.measurements["cpu/latency_p50_ms"] == 20
    assert part.measurements["cpu/launches"] == 1
    assert part.measurements["cpu/throughput_per_s"] == pytest.approx(4 * 12 / 0.312)


@pytest.mark.parametrize("measure", [as_worker, as_notebook])
def test_cautions_and_circumstances(clock: Clock, measure: Callable[[Call], Part]) -> None:
    part = measure(Call(clock))
    codes = [caution.code for caution in part.cautions]
    assert codes == [
        "few_samples",
        "unstable",
        "interference",
        "page_faults",
        "swapping",
        "oversubscribed",
        "slow_clock",
    ]
    assert part.environment["threads"] == "4096"


def test_the_two_agree_in_all_but_the_memory_and_the_first_call(clock: Clock) -> None:
    from_worker, from_notebook = as_worker(Call(clock)), as_notebook(Call(clock))
    assert from_worker.samples == from_notebook.samples
    assert from_worker.cautions == from_notebook.cautions

    def timed(part: Part) -> dict[str, float]:
        excluded = ("/ram_", "/first_call")
        return {name: value for name, value in part.measurements.items() if not any(word in name for word in excluded)}

    assert timed(from_worker) == timed(from_notebook)
    memory = {name for part in (from_worker, from_notebook) for name in part.measurements if "/ram_" in name}
    assert {"cpu/ram_peak_warmup_mib", "cpu/ram_peak_run_mib", "cpu/ram_peak_mib"} <= memory
    # unknown or missing in a notebook
    assert not {"cpu/ram_model_mib", "cpu/ram_peak_around_mib"} & set(from_notebook.measurements)


def test_the_first_call_is_a_number_of_its_own(clock: Clock) -> None:
    """A notebook's model may have been called before; a compiled model compiles kernels in its second call."""
    assert as_worker(Call(clock)).measurements["cpu/first_call_ms"] == 400
    assert "cpu/first_call_ms" not in as_notebook(Call(clock)).measurements
    call = Call(clock)
    compiled = TimedCall(lambda mark: call(), "cpu", 1, first_calls=2)
    part = time_call(compiled, BUDGET, MemoryMeter(), Silent())
    assert part.measurements["cpu/first_call_ms"] == 400 + 90
    assert part.samples["cpu/warmup_ms"][0] == 60


def test_the_first_launch_splits_the_budget_by_how_long_it_took_to_be_ready(clock: Clock) -> None:
    budget = Budget(min_iterations=12, min_seconds=0.6, energy_seconds=0, launches=5)  # 6 s may go into restoring
    planned = {}
    for ready_s in (1.4, 1.9, 2.9, 3.1):
        call = Call(clock)
        timed = TimedCall(unmarked(call), "cpu", 1)
        part = time_call(timed, budget, MemoryMeter(), Silent(), ready=iter([ready_s]).__next__)
        planned[ready_s] = part.facts["launches"], len(part.samples["cpu/latency_ms"])
        assert [caution.code for caution in part.cautions if caution.code.startswith("few")] == []
    assert {ready_s: launches for ready_s, (launches, _) in planned.items()} == {1.4: "5", 1.9: "4", 2.9: "3", 3.1: "1"}
    assert planned[1.4][1] < planned[2.9][1] < planned[3.1][1]


def test_a_further_launch_times_its_share_and_nothing_else(clock: Clock) -> None:
    call = Call(clock)
    budget = Budget(min_iterations=12, min_seconds=0, warmup_max_seconds=0.4, energy_seconds=5)
    timed = TimedCall(lambda mark: call(), "cpu", 1, rates=lambda latency_ms, stages_ms: {"speed": 1 / latency_ms})
    part = time_again(timed, budget, Silent(), False, 4)
    assert part.samples["cpu/latency_ms"] == [40, 20, 20]
    assert part.samples["cpu/warmup_ms"] == [90, 60]  # a quarter of the time for the warm-up, too
    assert part.measurements["cpu/speed"] == 1 / 20
    assert not {"cpu/first_call_ms", "cpu/cpu_time_share", "cpu/ram_peak_mib"} & set(part.measurements)


def test_what_is_around_the_call_is_made_and_timed_after_it(clock: Clock) -> None:
    call = Call(clock)
    made_after: list[int] = []

    def around() -> Mapping[str, Callable[[], object]]:
        made_after.append(len(call.seen))

        def tokenize() -> None:
            clock.now_ns += 3 * 10**6

        return {"tokenize": tokenize}

    timed = TimedCall(
        lambda mark: call(), "cpu", 2, around, lambda latency_ms, stages_ms: {"real_time": latency_ms / 10}
    )
    part = time_call(timed, BUDGET, MemoryMeter(), Silent())
    assert made_after == [1 + 8 + 12]
    assert part.measurements["cpu/tokenize_p50_ms"] == 3
    assert part.measurements["cpu/real_time"] == 2
    assert set(part.samples["cpu/tokenize_ms"]) == {3.0}
    assert len(part.samples["cpu/latency_ms"]) == 12


def test_what_helped_in_the_warm_up_ends_before_calls_are_counted(clock: Clock) -> None:
    call, memory = Call(clock), MemoryMeter()
    states: list[tuple[int, list[str]]] = []
    timed = TimedCall(
        lambda mark: call(), "cpu", 1, warmed=lambda: states.append((len(call.seen), list(memory.peaks_mib)))
    )
    time_call(timed, BUDGET, memory, Silent())
    assert states == [(1 + 8, ["warmup"])]


def test_a_turn_is_requested_before_each_round(clock: Clock) -> None:
    class Turns(Silent):
        def __init__(self) -> None:
            self.asked: list[tuple[int, float, float]] = []

        def turn(self, count: int, seconds: float, call_ms: float) -> float:
            self.asked.append((count, seconds, call_ms))
            return (100.0, 100.0, 200.0, 0.0)[len(self.asked) - 1]

    turns = Turns()
    call = Call(clock)
    part = time_call(TimedCall(lambda mark: call(), "cpu", 1), BUDGET, MemoryMeter(), turns, in_turns=True)
    assert part.samples["cpu/round_sizes"] == [5, 10]  # of calls that take 20 ms, in 100 and 200
    # before the very first call, when both are restored, and then before each round
    assert [count for count, _, _ in turns.asked] == [0, 0, 5, 15]
    assert [call_ms for _, _, call_ms in turns.asked] == [0, 20, 20, 20]
    assert len(part.samples["cpu/latency_ms"]) == 15
