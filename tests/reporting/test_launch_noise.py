"""The noise of a latency is the noise between launches: of the run itself, or of earlier runs like it."""

from __future__ import annotations

import math

import pytest
from conftest import MakeRun

from mlflow_compress.percentiles import LogError
from mlflow_compress.records import Run
from mlflow_compress.reporting import launch_noise


@pytest.fixture
def single_launches(make_run: MakeRun) -> list[Run]:
    """Return three runs with one launch each, whose logarithms are ln 1.1 apart."""
    return [make_run(metrics={"cpu/latency_p50_ms": median}) for median in (10.0, 11.0, 12.1)]


def test_a_run_of_several_launches_knows_its_own(make_run: MakeRun, single_launches: list[Run]) -> None:
    run = make_run(metrics={"cpu/latency_p50_ms": 10.0, "cpu/launches": 4.0, "cpu/latency_launch_sd": 0.02})
    assert launch_noise.of(run, "cpu", single_launches) == LogError(0.01, 3)
    assert launch_noise.of(run, "gpu", single_launches) is None


def test_earlier_launches_are_a_sample(single_launches: list[Run]) -> None:
    error = launch_noise.of(single_launches[0], "cpu", single_launches)
    assert error is not None
    assert error.error == pytest.approx(math.log(1.1))
    assert error.degrees == 2
    assert launch_noise.of(single_launches[0], "cpu", single_launches[:2]) is None
    assert launch_noise.of(single_launches[0], "cpu") is None


def test_runs_of_several_launches_lend_theirs(make_run: MakeRun, single_launches: list[Run]) -> None:
    """Computed by hand: (2 * ln(1.1)^2 + 4 * 0.01^2) / 6 with six degrees of freedom."""
    launched = make_run(metrics={"cpu/latency_p50_ms": 500.0, "cpu/launches": 5.0, "cpu/latency_launch_sd": 0.01})
    error = launch_noise.of(single_launches[0], "cpu", [*single_launches, launched])
    assert error is not None
    assert error.error == pytest.approx(math.sqrt((2 * math.log(1.1) ** 2 + 4e-4) / 6))
    assert error.degrees == 6


@pytest.mark.parametrize("tag", ["compress.env.cpu_model", "compress.env.torch", "compress.work", "compress.env.cores"])
def test_runs_under_other_circumstances_do_not_count(make_run: MakeRun, single_launches: list[Run], tag: str) -> None:
    elsewhere = [make_run(metrics=dict(run.metrics), tags={tag: "another"}) for run in single_launches]
    assert launch_noise.of(single_launches[0], "cpu", elsewhere) is None
    assert launch_noise.of(elsewhere[0], "cpu", elsewhere) is not None


@pytest.mark.parametrize("spread", [0.0, -1.0])
def test_a_spread_that_can_not_be_is_none(make_run: MakeRun, spread: float) -> None:
    run = make_run(metrics={"cpu/latency_p50_ms": 10.0, "cpu/launches": 5.0, "cpu/latency_launch_sd": spread})
    assert launch_noise.of(run, "cpu") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("launches", math.inf),
        ("launches", 1.7e308),
        ("launches", 1e9),
        ("launches", math.nan),
        ("latency_launch_sd", 1e300),
        ("latency_launch_sd", math.inf),
        ("latency_launch_sd", math.nan),
        ("latency_p50_ms", math.inf),
        ("latency_p50_ms", 1e300),
        ("latency_p50_ms", math.nan),
    ],
)
def test_impossible_numbers_do_not_count(
    make_run: MakeRun, single_launches: list[Run], name: str, value: float
) -> None:
    metrics = {"cpu/latency_p50_ms": 10.0, "cpu/launches": 1.0 if name == "latency_p50_ms" else 3.0}
    run = make_run(metrics=metrics | {"cpu/latency_launch_sd": 0.02, f"cpu/{name}": value})
    error = launch_noise.of(single_launches[0], "cpu", [*single_launches, run])
    assert error is not None
    assert error.error == pytest.approx(math.log(1.1), rel=0.1)
    assert error.degrees in (2, 3)


def test_a_result_that_was_logged_twice_counts_once(make_run: MakeRun, single_launches: list[Run]) -> None:
    numbers = {"cpu/latency_p50_ms": 10.0, "cpu/launches": 3.0, "cpu/latency_launch_sd": 0.02}
    error = launch_noise.of(single_launches[0], "cpu", [make_run(metrics=numbers) for _ in range(4)])
    assert error == LogError(0.02, 2)
