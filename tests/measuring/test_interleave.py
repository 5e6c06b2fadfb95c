"""Measuring in turns with the original."""

from __future__ import annotations

from lab import Lab


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
