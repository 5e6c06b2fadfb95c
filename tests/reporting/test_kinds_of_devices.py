"""Rows measured on different kinds of accelerators, selected by `--device`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from mlflow_compress.records import Run
from mlflow_compress.reporting import gate
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.gate import Demands
from mlflow_compress.reporting.table_headings import headings
from mlflow_compress.reporting.table_lines import on_accelerator

MakeRun = Callable[..., Run]
MAC = {"compress.env.gpu_device": "mps", "compress.env.gpu_model": "Apple M3 (MPS)"}
SERVER = {"compress.env.cuda": "13.0", "compress.env.gpu_model": "T4"}  # measured before kinds were stored


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    """Return an original and a variant on a Mac, and the same on a server."""

    def pair(latency_ms: float, ratio: float, tags: Mapping[str, str]) -> list[Run]:
        original = {"size/weights_mib": 100.0, "gpu/latency_p50_ms": latency_ms}
        variant = {
            "size/weights_mib": 50.0,
            "gpu/latency_p50_ms": latency_ms * ratio,
            "gpu/latency_ratio": ratio,
            "gpu/latency_ratio_low": ratio - 0.01,
            "gpu/latency_ratio_high": ratio + 0.01,
            "gpu/pairs": 5.0,
        }
        return [
            make_run(gpu="ok", tags=dict(tags), metrics=original),
            make_run(method="fp16", gpu="ok", tags=dict(tags), metrics=variant),
        ]

    return [*pair(10.0, 0.9, MAC), *pair(2.0, 0.5, SERVER)]


@pytest.mark.parametrize(
    ("device", "latencies"),
    [("mps", {10.0, 9.0}), ("cuda", {2.0, 1.0}), ("xpu", set()), ("gpu", {2.0, 1.0}), ("", {2.0, 1.0})],
)
def test_only_numbers_of_the_kind_remain(runs: list[Run], device: str, latencies: set[float]) -> None:
    comparison = compare(on_accelerator(runs, device), devices=("gpu",))
    assert {row.values["gpu/latency_p50_ms"] for row in comparison.rows} == latencies


def test_the_hardware_of_a_row_names_the_kind(runs: list[Run]) -> None:
    rows = compare(on_accelerator(runs, "mps"), devices=("gpu",)).rows
    assert {row.hardware for row in rows} == {"Apple M3 (MPS)"}


@pytest.mark.parametrize(("device", "verdict"), [("cuda", "passes"), ("mps", "fails")])
def test_the_gate_checks_the_numbers_of_one_kind(runs: list[Run], device: str, verdict: str) -> None:
    checks = gate.check(compare(on_accelerator(runs, device)), Demands(min_speedup=1.5, device="gpu"))
    assert gate.verdict(checks) == verdict


def test_what_was_not_measured_on_the_kind_is_not_passed(make_run: MakeRun) -> None:
    both = {"size/weights_mib": 100.0, "cpu/latency_p50_ms": 10.0, "gpu/latency_p50_ms": 5.0}
    runs = [
        make_run(cpu="ok", gpu="ok", tags=dict(SERVER), metrics=both),
        make_run(method="fp16", cpu="ok", gpu="ok", tags=dict(SERVER), metrics=both),
        make_run(method="int8_dynamic", tags={"status": "failed", "compress.outcome.cpu": None}, metrics={}),
    ]
    kept = on_accelerator(runs, "xpu")
    assert [run.metrics.get("cpu/latency_p50_ms") for run in kept] == [10.0, 10.0, None]
    assert not any("gpu/latency_p50_ms" in run.metrics for run in kept)
    verdicts = {item.method: item.verdict for item in gate.check(compare(kept), Demands(min_speedup=1.5, device="gpu"))}
    assert verdicts == {"fp16": "undecided", "int8_dynamic": "fails"}


@pytest.mark.parametrize("header", ["Время инференса (MPS, ms)", "XPU latency, ms", "Latency (CUDA, ms)"])
def test_a_header_may_name_any_kind(header: str) -> None:
    assert headings([header])[0].metric == "gpu/latency_p50_ms"
