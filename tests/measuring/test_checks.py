"""Which readings lead to a caution, and which do not."""

from __future__ import annotations

import pytest

from mlflow_compress.measuring import checks
from mlflow_compress.meters import cgroup
from mlflow_compress.meters.energy import Energy
from mlflow_compress.meters.latency import Timing
from mlflow_compress.meters.usage import Usage


def codes(samples: list[float], settled: bool = True) -> list[str]:
    cautions = [*checks.few(len(samples), "cpu"), *checks.timing(Timing(samples, settled=settled), "cpu")]
    return [caution.code for caution in cautions]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([20.0] * 6, ["few_samples"]),  # no percentile above the median
        ([20.0] * 28, ["few_samples"]),
        ([20.0] * 29, ["few_for_tail"]),  # enough for p90, but MLPerf requires more
        ([20.0] * 58, ["few_for_tail"]),
        ([20.0] * 64, ["few_for_tail"]),  # enough for p90, but not for p95
        ([20.0] * 130, []),
        ([20.0] * 300, ["few_for_tail"]),  # p99
        ([20.0] * 662, []),
        ([20.0, 40.0] * 65, ["unstable"]),
        ([20.0] * 128 + [500.0] * 2, []),  # two outliers are not a spread
        ([20.0] * 65 + [22.0] * 65, ["drift"]),
        ([20.0] * 65 + [20.5] * 65, []),  # too small to matter
        ([22.0] * 65 + [20.0] * 65, ["drift"]),
    ],
)
def test_cautions(samples: list[float], expected: list[str]) -> None:
    assert codes(samples) == expected


def test_a_caution_says_what_to_do() -> None:
    cautions = [*checks.few(30, "cpu"), *checks.timing(Timing([20.0, 40.0] * 15), "cpu")]
    assert {caution.code for caution in cautions} == {"few_for_tail", "not_settled", "unstable"}
    assert all(caution.advice and caution.message.startswith("cpu: ") for caution in cautions)
    assert "--iterations 64" in cautions[0].advice


def used(**changed: float) -> Usage:
    quiet: dict[str, float] = {
        "wall_s": 10.0,
        "cpu_s": 19.0,
        "switches": 200,
        "minor_faults": 1000,
        "major_faults": 0,
        "throttled": 0,
    }
    return Usage(**{**quiet, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"switches": 5000, "cpu_s": 8.0}, ["interference"]),
        ({"switches": 5000, "cpu_s": 19.5}, []),  # switched often, but never kept from running
        ({"switches": 200, "cpu_s": 8.0}, []),  # waits voluntarily: one thread does all the work
        ({"minor_faults": 3_000_000}, ["page_faults"]),
        ({"major_faults": 500}, ["swapping"]),
        ({"major_faults": 5}, []),
        ({"throttled": 1}, ["throttled"]),
    ],
)
def test_usage(changed: dict[str, float], expected: list[str]) -> None:
    assert [caution.code for caution in checks.usage(used(**changed), 10, 2, "cpu")] == expected


@pytest.mark.parametrize("calls", [10_000_000, 10])
def test_how_often_threads_were_interrupted(calls: int) -> None:
    (caution,) = checks.usage(used(switches=5000, cpu_s=1.0), calls, 2, "cpu")
    assert "interrupted each thread 250 times a second, and the threads ran only 5% of the time" in caution.message


def test_interference_is_the_cpus() -> None:
    assert checks.usage(used(switches=5000, cpu_s=1.0), 10, 2, "gpu") == []


@pytest.mark.parametrize(
    ("cpu", "gpu", "expected"),
    [(0.0, 0.0, []), (0.15, 0.05, []), (0.16, 0.0, ["busy_machine"]), (1.0, 0.5, ["busy_machine", "busy_gpu"])],
)
def test_busy(cpu: float, gpu: float, expected: list[str]) -> None:
    assert [caution.code for caution in checks.busy(cpu, gpu)] == expected


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    assert checks.threads(2) == []
    (caution,) = checks.threads(3)
    assert (caution.code, "--threads to 2" in caution.advice) == ("oversubscribed", True)
    monkeypatch.setattr(cgroup, "core_limit", lambda root: 1.5)
    assert checks.threads(1) == []
    assert [caution.code for caution in checks.threads(2)] == ["oversubscribed"]


def test_pauses_by_a_containers_limit_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "core_limit", lambda root: 1.5)
    (caution,) = checks.usage(used(stopped=7), 10, 2, "cpu")
    assert (caution.code, "paused 7 times" in caution.message) == ("cpu_limit", True)
    assert "--threads 1," in caution.advice


def test_precision_is_judged_for_weights_that_are_there() -> None:
    assert checks.precision({"torch.float32", "torch.float16"}, ["bfloat16"]) == []
    (caution,) = checks.precision({"torch.float32", "torch.bfloat16"}, ["bfloat16", "float16"])
    assert "bfloat16" in caution.message


def test_energy_that_is_not_counted() -> None:
    assert checks.energy(Energy(5, 10, 30.0, 0, is_counted=True)) == []
    assert checks.energy(Energy(5, 10, 0.0, 0, is_counted=False)) == []
    assert [caution.code for caution in checks.energy(Energy(5, 10, 30.0, 0, is_counted=False))] == ["energy_estimated"]


def test_a_tiny_quality_sample() -> None:
    assert checks.quality(100) == []
    assert [caution.code for caution in checks.quality(99)] == ["tiny_quality_sample"]


@pytest.mark.parametrize(
    ("share", "reason", "expected"),
    [(None, "", []), (1.4, "", []), (0.96, "", []), (0.6, "", ["slow_clock"]), (None, "heat", ["throttled"])],
)
def test_clock(share: float | None, reason: str, expected: list[str]) -> None:
    assert [caution.code for caution in checks.clock(share, reason)] == expected


def test_every_caution_says_what_to_do() -> None:
    cautions = [
        *checks.few(80, "cpu"),
        *checks.timing(Timing([20.0, 40.0] * 20 + [90.0, 190.0] * 20), "cpu"),
        *checks.usage(used(switches=9000, cpu_s=1.0, minor_faults=9e6, major_faults=900, throttled=3), 10, 2, "cpu"),
        *checks.busy(1, 1),
        *checks.clock(0.5, "heat"),
        *checks.threads(10**6),
        *checks.precision(["torch.float16"], ["float16"]),
        *checks.energy(Energy(5, 10, 30.0, 0, is_counted=False)),
        *checks.quality(1),
    ]
    assert len({caution.code for caution in cautions}) == 15
    assert all(caution.advice.endswith((".", "64", "130", "662")) for caution in cautions)
