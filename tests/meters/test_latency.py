from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.meters import latency
from mlflow_compress.meters.latency import Timing, brief, measure, unmarked
from mlflow_compress.records import Budget
from mlflow_compress.sockets import Mark


class Clock:
    """A fake `time`, which only advances in the calls."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def pass_ms(self, milliseconds: float) -> None:
        self.now_ns += round(milliseconds * 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(latency, "time", fake)
    return fake


def ignore(done: int, total: int | None, seconds_left: float | None) -> None:
    """Ignore progress."""


def taking(clock: Clock, milliseconds: Iterable[float]) -> Callable[[Mark], object]:
    """Return a call that takes these times, one after the other, and then always the last one."""
    times: Iterator[float] = iter(milliseconds)
    latest = 0.0

    def call(mark: Mark) -> None:
        nonlocal latest
        latest = next(times, latest)
        clock.pass_ms(latest)

    return call


def test_each_call_is_timed_and_the_warm_up_is_kept_apart(clock: Clock) -> None:
    times = [50.0, 30, 20, 20, 20, 20, 20, 21, 22, 23, 24, 25, 26]
    timing = measure(taking(clock, times), "cpu", Budget(min_iterations=6, min_seconds=0), ignore)
    assert timing.warmup_ms == times[:7]  # the medians of calls 2 to 4 and 5 to 7 agree
    assert timing.settled
    assert timing.wall_ms == times[7:13]
    assert timing.events_ms == []
    assert timing.stages_ms == {}


def test_marks_become_stages(clock: Clock) -> None:
    def call(mark: Mark) -> None:
        clock.pass_ms(5)
        mark("encoder")
        for milliseconds in (2, 3, 4):
            clock.pass_ms(milliseconds)
            mark("token")
        clock.pass_ms(1)

    timing = measure(call, "cpu", Budget(min_iterations=6, min_seconds=0), ignore)
    assert timing.wall_ms == [15.0] * 6
    assert timing.stages_ms == {"encoder": [5.0] * 6, "token": [2.0, 3.0, 4.0] * 6}
    numbers = latency.numbers(timing, "cpu", 1)
    assert (numbers["cpu/encoder_p50_ms"], numbers["cpu/token_p50_ms"]) == (5.0, 3.0)


@pytest.mark.parametrize(
    ("milliseconds", "budget", "calls"),
    [
        (10, Budget(min_iterations=50, min_seconds=0), 50),
        (10, Budget(min_iterations=50, min_seconds=2), 200),  # both must be reached
        (10, Budget(min_iterations=50, min_seconds=0.1), 50),
        (1000, Budget(min_iterations=50, min_seconds=3, max_seconds=20), 20),  # at most this
        (30_000, Budget(min_iterations=50, min_seconds=3, max_seconds=20), 6),  # but enough for a median
        (1000, Budget(min_iterations=2, min_seconds=0, max_seconds=0), 2),
        (1000, Budget(min_iterations=50, min_seconds=0, max_seconds=0, fewest_iterations=3), 3),
    ],
)
def test_counting_stops_when_the_budget_says(clock: Clock, milliseconds: float, budget: Budget, calls: int) -> None:
    timing = measure(taking(clock, [milliseconds]), "cpu", budget, ignore)
    assert len(timing.wall_ms) == calls


def test_a_latency_that_never_settles_ends_the_warm_up_in_time(clock: Clock) -> None:
    growing = (1.3**power for power in itertools.count())
    budget = Budget(min_iterations=6, min_seconds=0, max_seconds=1, warmup_max_seconds=1)
    timing = measure(taking(clock, growing), "cpu", budget, ignore)
    assert not timing.settled
    assert sum(timing.warmup_ms[:-1]) < 1000 <= sum(timing.warmup_ms)


def test_a_slow_call_is_warmed_up_twice(clock: Clock) -> None:
    budget = Budget(min_iterations=6, min_seconds=0, max_seconds=1, warmup_max_seconds=20)
    timing = measure(taking(clock, [60_000]), "cpu", budget, ignore)
    assert len(timing.warmup_ms) == 2


def test_a_clock_that_stands_still_breaks_nothing(clock: Clock) -> None:
    timing = measure(lambda mark: None, "cpu", Budget(min_iterations=8, min_seconds=0), ignore)
    assert timing.wall_ms == [0.0] * 8


def test_progress_reports_what_is_left(clock: Clock) -> None:
    events: list[tuple[int, int | None, float | None]] = []
    budget = Budget(min_iterations=10, min_seconds=2)
    timing = measure(taking(clock, [100]), "cpu", budget, lambda *args: events.append(args))
    warming, counting = events[: len(timing.warmup_ms)], events[len(timing.warmup_ms) :]
    assert {(total, remaining) for _, total, remaining in warming} == {(None, None)}
    assert [done for done, _, _ in counting] == list(range(1, 20))
    assert {total for _, total, _ in counting} == {20}
    remaining = [seconds for _, _, seconds in counting if seconds is not None]
    assert remaining == pytest.approx([0.1 * (20 - count) for count in range(1, 20)])


def test_no_more_is_left_than_the_budget_allows(clock: Clock) -> None:
    remaining: list[float] = []

    def progress(done: int, total: int | None, seconds_left: float | None) -> None:
        if seconds_left is not None:
            remaining.append(seconds_left)

    budget = Budget(min_iterations=1000, min_seconds=0, max_seconds=10)
    measure(taking(clock, [1000]), "cpu", budget, progress)
    assert remaining == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("collecting", [True, False])
def test_the_garbage_collector_is_off_meanwhile_and_as_before_afterwards(clock: Clock, collecting: bool) -> None:
    states = set()

    def call(mark: Mark) -> None:
        states.add(gc.isenabled())

    was = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        measure(call, "cpu", Budget(min_iterations=6, min_seconds=0), ignore)
        assert gc.isenabled() is collecting
    finally:
        gc.enable() if was else gc.disable()
    assert states == {False}


def test_the_garbage_collector_is_on_again_after_an_error() -> None:
    def call(mark: Mark) -> None:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        measure(call, "cpu", Budget(), ignore)
    assert gc.isenabled()


def test_a_call_without_stages(clock: Clock) -> None:
    calls = []
    timing = measure(unmarked(lambda: calls.append(1)), "cpu", Budget(min_iterations=6, min_seconds=0), ignore)
    assert len(calls) == len(timing.wall_ms) + len(timing.warmup_ms)


def test_a_brief_budget_has_as_many_calls_in_a_tenth_of_the_time() -> None:
    assert brief(Budget(30, 5, 60, 6, 20, 999)) == Budget(30, 0.5, 6, 6, 2, 999)


@pytest.mark.parametrize(("count", "ranks"), [(5, []), (28, []), (29, [90]), (59, [90, 95]), (299, [90, 95, 99])])
def test_a_percentile_is_withheld_that_the_sample_cannot_carry(count: int, ranks: list[int]) -> None:
    numbers = latency.numbers(Timing(wall_ms=[20.0 + index / 100 for index in range(count)], settled=True), "gpu", 1)
    assert "gpu/latency_p50_ms" in numbers
    assert "gpu/latency_p50_low_ms" not in numbers  # of one launch the noise is not known
    for rank in (90, 95, 99):
        assert (f"gpu/latency_p{rank}_low_ms" in numbers) == (rank in ranks)
        assert (f"gpu/latency_p{rank}_ms" in numbers) == (rank in ranks)


def test_a_summary_says_all_in_its_units() -> None:
    timing = Timing([10.0, 20, 30, 40, 50, 60], warmup_ms=[90.0, 80], events_ms=[9.0, 19, 29, 39, 49, 59], settled=True)
    numbers = latency.numbers(timing, "gpu", 4)
    assert numbers == {
        "gpu/latency_mean_ms": 35,
        "gpu/latency_min_ms": 10,
        "gpu/latency_max_ms": 60,
        "gpu/latency_p50_ms": 35,
        "gpu/launches": 1,
        "gpu/latency_events_p50_ms": 34,
        "gpu/latency_count": 6,
        "gpu/warmup_count": 2,
        "gpu/throughput_per_s": pytest.approx(4 * 6 / 0.21),
    }


def test_launches_give_the_median_its_spread_and_its_interval() -> None:
    timing = Timing([8.0, 10, 12, 20, 20, 40, 40], launch_sizes=[3, 2, 2])  # medians 10, 20 and 40
    numbers = latency.numbers(timing, "cpu", 1)
    assert numbers["cpu/launches"] == 3
    assert numbers["cpu/latency_p50_ms"] == pytest.approx(20)
    assert numbers["cpu/latency_launch_sd"] == pytest.approx(math.log(2))
    factor = math.exp(4.302652729749464 * math.log(2) / math.sqrt(3))  # Student's t of two degrees
    assert numbers["cpu/latency_p50_low_ms"] == pytest.approx(20 / factor)
    assert numbers["cpu/latency_p50_high_ms"] == pytest.approx(20 * factor)
    assert latency.samples(timing, "cpu")["cpu/launch_sizes"] == [3, 2, 2]


def test_two_launches_have_a_spread_and_no_interval() -> None:
    numbers = latency.numbers(Timing([10.0, 10, 20, 20], launch_sizes=[2, 2]), "cpu", 1)
    assert numbers["cpu/latency_launch_sd"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert "cpu/latency_p50_low_ms" not in numbers


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1e5), min_size=1, max_size=80))
def test_percentiles_of_a_summary_are_in_order(samples: list[float]) -> None:
    numbers = latency.numbers(Timing(samples), "cpu", 1)
    order = ["min", "p50", "p90", "p95", "p99", "max"]
    ordered = [numbers[f"cpu/latency_{name}_ms"] for name in order if f"cpu/latency_{name}_ms" in numbers]
    assert ordered == sorted(ordered)
    slack = 1e-9 * numbers["cpu/latency_max_ms"]
    assert numbers["cpu/latency_min_ms"] - slack <= numbers["cpu/latency_mean_ms"]
    assert numbers["cpu/latency_mean_ms"] <= numbers["cpu/latency_max_ms"] + slack


@pytest.mark.full
@pytest.mark.gpu
def test_events_and_wall_clock_agree_on_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    matrix = torch.rand(4096, 4096, device="cuda")

    def call(mark: Mark) -> None:
        product = matrix
        for _ in range(20):
            product = product @ matrix
        mark("products")

    timing = measure(call, "cuda", Budget(min_iterations=20, min_seconds=0), ignore)
    assert len(timing.events_ms) == len(timing.wall_ms) == len(timing.stages_ms["products"])
    pairs = zip(timing.wall_ms, timing.events_ms, timing.stages_ms["products"], strict=True)
    assert all(wall >= event >= stage > 0 for wall, event, stage in pairs)
