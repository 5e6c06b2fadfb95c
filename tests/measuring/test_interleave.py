"""Measuring in turns with the original."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Lab

from mlflow_compress.measuring import interleave, worker_process
from mlflow_compress.records import Budget, Outcome, Part, Variant, to_json


def test_turns_are_taken_with_the_original(lab: Lab) -> None:
    result = lab.measure("drop_last:count=1", interleave=True)
    assert result.status == "ok", result.reason
    numbers, samples = result.measurements, result.samples
    assert numbers["cpu/rounds"] == len(samples["cpu/round_sizes"]) >= 10
    assert sum(samples["cpu/round_sizes"]) == len(samples["cpu/latency_ms"]) == numbers["cpu/latency_count"]
    assert len(samples["cpu/original_latency_ms"]) >= 10
    assert samples["cpu/ram_timeline_mib"]
    assert numbers["cpu/latency_ratio_low"] <= numbers["cpu/latency_ratio"] <= numbers["cpu/latency_ratio_high"]
    assert 0.2 < numbers["cpu/latency_ratio"] < 5  # one small layer less


def test_the_original_takes_no_turns_with_itself(lab: Lab) -> None:
    result = lab.measure("original", interleave=True)
    assert result.status == "ok", result.reason
    assert "cpu/latency_ratio" not in result.measurements


def test_a_variant_that_dies_in_its_turn_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=sigkill,at=rebuild", interleave=True)
    assert result.status == "failed"
    assert "SIGKILL" in result.reason


def test_an_original_that_cannot_be_measured_is_the_reason(lab: Lab) -> None:
    result = lab.measure("traced", interleave=True, devices=("cuda",))
    assert result.status == "skipped"
    assert "CUDA" in result.reason


@pytest.mark.parametrize(
    "samples", [{}, {"cpu/latency_ms": [1.0], "cpu/round_sizes": [0.0]}, {"cpu/latency_ms": [0.0]}]
)
def test_a_part_without_latencies_of_its_rounds_has_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, samples: dict[str, list[float]]
) -> None:
    monkeypatch.setattr(worker_process, "_PROGRAM", (str(tmp_path / "fake.py"),))
    part = json.dumps(to_json(Part(Outcome("ok"), samples=samples)))
    (tmp_path / "fake.py").write_text(
        f'from pathlib import Path\nprint(\'{{"turn": {{"count": 9, "seconds": 99}}}}\', flush=True)\n'
        f"Path('measure-cpu.json').write_text({part!r})"
    )
    variant = Variant("tiny", "fp16", "alpha", "python", "x.py", budget=Budget(timeout_seconds=30))
    folders = [tmp_path / name for name in ("own", "original")]
    for folder in folders:
        folder.mkdir()
    found = interleave.alternate(variant, folders[0], variant, folders[1], "cpu", False, lambda event: None)
    assert found.outcome == Outcome("failed", "measure left no latencies of the rounds")
