"""Estimates of how long variants will take, and their sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mlflow_compress.records import Budget, Result, Run, Step, Variant
from mlflow_compress.sweeping.forecast import Estimate, Forecast
from mlflow_compress.tracking.writing import tags_of

MakeRun = Callable[..., Run]

X = Variant("small", "x", "none", "python", "x.py", chain=(Step("fp16"),))


def test_nothing_is_known_but_the_budget() -> None:
    budget = Budget(max_seconds=60, warmup_max_seconds=20, energy_seconds=5)
    estimate = Forecast().of(replace(X, budget=budget))
    assert estimate.source == "budget"
    # preparing; one process, its warm-up, all calls, the energy; four more processes, each with a fifth of a warm-up
    one_device = 30 + (30 + 20 + 60 + 5) + (60 + 4 * 4)
    assert estimate.seconds == pytest.approx(one_device)
    two_devices = Forecast().of(replace(X, budget=budget, devices=("cpu", "cuda")))
    assert two_devices.seconds == pytest.approx(one_device + one_device - 30)
    in_turns = replace(X, budget=budget, interleave=True)
    # two are prepared, and two warm up and are timed one after the other; a pair's processes start at the same time
    assert Forecast().of(in_turns).seconds == pytest.approx(2 * 30 + (30 + 2 * (20 + 60) + 5) + (60 + 2 * 4 * 4))
    assert Forecast().of(replace(in_turns, method="original", chain=())).seconds == pytest.approx(one_device)


@pytest.mark.parametrize(
    ("launches", "further"),
    [(1, 0), (2, 0), (3, 2 * 30 + 2 * 20 / 3), (4, 75 + 3 * 5), (100, 75 + 99 * 20 / 100)],
)
def test_further_launches_take_no_longer_than_they_may(launches: int, further: float) -> None:
    budget = Budget(
        min_seconds=7.5, max_seconds=60, warmup_max_seconds=20, energy_seconds=0, launches=launches
    )  # ten times 7.5 s for all restoring
    one_launch = 30 + 30 + 20 + 60
    assert Forecast().of(replace(X, budget=budget)).seconds == pytest.approx(one_launch + further)


def test_the_same_variant_is_known_before_its_model_is(make_run: MakeRun) -> None:
    runs = [
        make_run("small", "x", tags={"compress.seconds": "10"}),
        make_run("small", "x", tags={"compress.seconds": "30", "compress.batch_size": "4"}),
        make_run("other", "x", tags={"compress.seconds": "1000"}),
        make_run("small", "y", "failed", tags={"compress.seconds": "1000", "status": "failed"}),
        make_run("small", "y", tags={"compress.seconds": "soon"}),
    ]
    forecast = Forecast(reversed(runs))
    assert forecast.of(X) == Estimate(10, "this variant")
    assert forecast.of(replace(X, batch_size=4)) == Estimate(30, "this variant")
    assert forecast.of(replace(X, setting="threads=1")) == Estimate(20, "this model")
    assert forecast.of(replace(X, method="y")) == Estimate(20, "this model")
    assert forecast.of(replace(X, model="new")).source == "budget"


def test_the_newest_run_counts(make_run: MakeRun) -> None:
    old, new = (make_run("small", "x", tags={"compress.seconds": seconds}) for seconds in ("10", "12"))
    assert Forecast([new, old]).of(X) == Estimate(12, "this variant")


def test_another_cpu_teaches_nothing(make_run: MakeRun) -> None:
    run = make_run("small", "x", tags={"compress.seconds": "10"})
    assert Forecast([run], {"cpu_model": "Xeon"}).of(X).source == "this variant"
    assert Forecast([run], {"cpu_model": "EPYC"}).of(X).source == "budget"


def test_what_was_measured_meanwhile_counts_and_a_failure_does_not() -> None:
    forecast = Forecast()
    forecast.learn(Result(X, "failed", started_s=5, ended_s=6))
    assert forecast.of(X).source == "budget"
    forecast.learn(Result(X, "ok", started_s=5, ended_s=12))
    assert forecast.of(X) == Estimate(7, "this variant")
    assert forecast.of(replace(X, method="y")) == Estimate(7, "this model")


def test_a_logged_result_says_how_long_it_took() -> None:
    result = Result(X, "ok", started_s=5, ended_s=12.25)
    run = Run("1", "hw1", "run", "FINISHED", 5, tags=tags_of(result))
    assert Forecast([run]).of(X).seconds == pytest.approx(7.25, abs=0.1)
