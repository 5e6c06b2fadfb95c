"""Load on a service: when requests arrive, and what a slow or dead service costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.meters import load
from mlflow_compress.meters.load import Load, Request

LOADS = st.builds(
    Load,
    rate=st.floats(0.5, 200),
    callers=st.just(0),
    pattern=st.sampled_from(["constant", "ramp", "spike"]),
    seconds=st.floats(0.5, 10),
    seed=st.integers(0, 2**32),
)


def run(plan: Load, send: Callable[[int], str], timeout_s: float = 1.0) -> load.Outcome:
    return load.run(plan, lambda: send, timeout_s, lambda done, total, left: None)


@given(LOADS, st.floats(0, 1))
def test_arrivals_are_sorted_repeatable_and_as_many_as_expected(plan: Load, share: float) -> None:
    arrivals = plan.arrivals()
    assert arrivals == sorted(arrivals) == plan.arrivals()
    assert all(0 <= moment <= plan.seconds for moment in arrivals)
    moment = share * plan.seconds
    expected = plan.expected(moment)
    seen = sum(arrival <= moment for arrival in arrivals)
    assert abs(seen - expected) <= 8 * expected**0.5 + 20  # Poisson: a standard deviation is the root of its mean
    assert plan._moment_of(expected) == pytest.approx(moment, abs=1e-6 * plan.seconds)


def test_a_pattern_has_its_rates() -> None:
    plans = {pattern: Load(100.0, 0, pattern, 10.0) for pattern in ("constant", "ramp", "spike")}
    assert [plans["constant"].expected(moment) for moment in (5, 10)] == [500, 1000]
    assert [plans["ramp"].expected(moment) for moment in (5, 10)] == [125, 500]
    assert [plans["spike"].expected(moment) for moment in (4, 6, 10)] == pytest.approx([40, 240, 280])


def test_callers_come_by_the_pattern() -> None:
    assert Load(0, 4, "ramp", 8).shifts() == [(0, 8), (2, 8), (4, 8), (6, 8)]
    assert Load(0, 20, "spike", 10).shifts() == [(0, 10)] * 2 + [(4, 6)] * 18
    assert Load(0, 2, "constant", 3).shifts() == [(0, 3)] * 2


@pytest.mark.full
def test_waiting_in_a_queue_counts() -> None:
    """A service that takes 20 ms for a request, one at a time, at 100 requests/s: the queue grows for half a second."""
    door = Lock()

    def send(number: int) -> str:
        with door:
            time.sleep(0.02)
        return ""

    outcome = run(Load(100, 0, "constant", 0.5, seed=1), send, timeout_s=5)
    latencies = outcome.latencies_ms()
    assert max(latencies) > 200  # a caller that waits for each answer would see 20 ms
    assert outcome.numbers()["load/requests_per_second"] < 51
    callers = run(Load(0, 1, "constant", 0.5), send)
    assert max(callers.latencies_ms()) < max(latencies)


@pytest.mark.full
def test_a_dead_service_ends_in_time() -> None:
    started, released = time.monotonic(), Event()

    def hang(number: int) -> str:
        released.wait(120)
        return "timeout"

    outcome = run(Load(200, 0, "constant", 0.2), hang, timeout_s=0.3)
    released.set()
    assert {request.error for request in outcome.requests} == {"no answer at the end"}
    assert outcome.numbers() == {"load/requests_per_second": 0, "load/errors": 1}
    assert time.monotonic() - started < 60
    calls: list[int] = []

    def refuse(number: int) -> str:
        calls.append(number)
        return "no connection"

    assert run(Load(0, 2, "constant", 0.3), refuse).numbers()["load/errors"] == 1
    assert 2 <= len(calls) <= 8  # a caller waits after an error


def test_numbers_and_time_line() -> None:
    requests = [Request(index / 100, index / 100 + 0.01, "" if index % 4 else "status 500") for index in range(200)]
    outcome = load.Outcome(requests, 2.0, [0.0] * 100 + [0.5] * 2)
    numbers: dict[str, Any] = outcome.numbers()
    assert set(numbers) == {"load/requests_per_second", "load/errors", "load/p50_ms", "load/p95_ms"}  # too few for p99
    assert numbers["load/requests_per_second"] == 75
    assert numbers["load/errors"] == 0.25
    assert numbers["load/p95_ms"] == pytest.approx(10)
    assert [caution.code for caution in outcome.cautions()] == ["load_errors", "load_client"]
    assert "50 of 200 requests under load failed (50 x status 500)" in outcome.cautions()[0].message
    assert outcome.table()["data"] == [[0, 100, 25, pytest.approx(10), pytest.approx(10)],
                                       [1, 100, 25, pytest.approx(10), pytest.approx(10)]]  # fmt: skip
    assert load.Outcome([], 1.0).numbers() == {}
    assert str(Load(20, 0, "ramp", 30)) == "ramp, 20 requests/s at random moments, 30 s"
