"""Several fresh launches of one saved model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from lab import Lab

from mlflow_compress.measuring import launches, one_process
from mlflow_compress.percentiles import launch_interval, launch_mean
from mlflow_compress.records import Budget, Caution, Outcome, Part, Variant

VARIANT = Variant("tiny", "original", "alpha", "python", "x.py", batch_size=2, budget=Budget(timeout_seconds=900))


def launch(latencies: Sequence[float], **facts: str) -> Part:
    return Part(
        Outcome("ok"),
        measurements={"cpu/tokens_per_s": 1000 / latencies[0]},
        samples={"cpu/latency_ms": list(latencies), "cpu/warmup_ms": [9.0], "cpu/token_ms": [latencies[0] / 2]},
        cautions=(Caution("drift", f"of {latencies[0]}"),),
        facts=facts,
    )


class Processes:
    """A fake `work` that returns one part after the other, and records its arguments."""

    def __init__(self, *parts: Part) -> None:
        self._parts = list(parts)
        self.asked: list[tuple[str, str]] = []
        self.timeouts: list[float] = []

    def __call__(
        self, verb: str, variant: Variant, folder: Path, listener: object, device: str = "", plan: str = ""
    ) -> Part:
        self.asked.append((verb, plan))
        self.timeouts.append(variant.budget.timeout_seconds)
        return self._parts.pop(0)


def measured(monkeypatch: pytest.MonkeyPatch, *parts: Part) -> tuple[Part, Processes]:
    processes = Processes(*parts)
    monkeypatch.setattr(launches, "work", processes)
    return launches.measure(VARIANT, Path(), "cpu", True, lambda event: None), processes


def first(latencies: Sequence[float], planned: str) -> Part:
    part = launch(latencies, launches=planned, work="a call")
    numbers = {**part.measurements, "cpu/ram_peak_mib": 70.0, "quality/accuracy": 0.5, "cpu/first_call_ms": 40.0}
    samples = {**part.samples, "cpu/tokenize_ms": [0.5]}  # around the call: further launches do not time it
    return dataclasses.replace(part, measurements=numbers, samples=samples)


def test_further_launches_add_their_latencies_to_the_first_ones_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    part, processes = measured(monkeypatch, first([4.0, 4, 5], "3"), launch([5.0, 5]), launch([8.0, 8, 8]))
    assert processes.asked == [("measure", "score"), ("time", "2/3"), ("time", "3/3")]
    assert (
        processes.timeouts[0] == 900 > 70 > processes.timeouts[1]
    )  # do not wait so long for a further launch that hangs
    numbers = part.measurements
    assert numbers["cpu/launches"] == 3
    assert numbers["cpu/latency_p50_ms"] == pytest.approx(launch_mean([4, 5, 8]))
    ends = numbers["cpu/latency_p50_low_ms"], numbers["cpu/latency_p50_high_ms"]
    assert ends == pytest.approx(launch_interval([4, 5, 8]))
    assert numbers["cpu/latency_count"] == 8
    assert numbers["cpu/tokens_per_s"] == pytest.approx(1000 / launch_mean([4, 5, 8]))  # a rate of the family
    assert numbers["cpu/token_p50_ms"] == 2.5
    assert (numbers["cpu/ram_peak_mib"], numbers["quality/accuracy"]) == (70, 0.5)
    assert numbers["cpu/first_call_ms"] == 40  # the other launches find compiled kernels on the disk
    assert part.samples["cpu/latency_ms"] == [4, 4, 5, 5, 5, 8, 8, 8]
    assert part.samples["cpu/launch_sizes"] == [3, 2, 3]
    assert part.samples["cpu/token_ms"] == [2, 2.5, 4]
    assert part.samples["cpu/tokenize_ms"] == [0.5]
    assert part.facts == {"work": "a call"}
    assert [caution.code for caution in part.cautions] == [
        "few_samples",
        "drift",
    ]  # from all launches, one of each kind


@pytest.mark.parametrize(
    ("further", "counted", "tried"),
    [
        ([Part(Outcome("failed", "killed")), launch([8.0])], 2, 2),
        ([Part(Outcome("failed", "killed"))] * 2, 1, 2),  # no further launch is tried
        ([Part(Outcome("ok")), Part(Outcome("ok"), samples={"cpu/latency_ms": [0.0]})], 1, 2),  # nothing that counts
    ],
)
def test_a_launch_that_fails_takes_nothing_from_the_first(
    monkeypatch: pytest.MonkeyPatch, further: list[Part], counted: int, tried: int
) -> None:
    remaining = [launch([9.0])] * (3 - len(further)) if counted > 1 else []
    part, processes = measured(monkeypatch, first([4.0, 4], "3"), *further, *remaining)
    assert part.outcome == Outcome("ok")
    assert len(processes.asked) == 1 + tried
    assert part.measurements["quality/accuracy"] == 0.5
    assert part.samples["cpu/latency_ms"][:2] == [4, 4]
    assert part.measurements.get("cpu/launches", 1) == counted
    assert "cpu/latency_p50_low_ms" not in part.measurements
    lost = next(caution for caution in part.cautions if caution.code == "lost_launches")
    assert lost.message.startswith(f"cpu: {counted} of 3 launches could be timed: ")


@pytest.mark.parametrize("planned", ["1", "", "-3", "two", "9" * 400])
def test_there_is_one_launch_if_no_more_are_planned(monkeypatch: pytest.MonkeyPatch, planned: str) -> None:
    part, processes = measured(monkeypatch, first([4.0], planned))
    assert len(processes.asked) == 1
    assert "launches" not in part.facts


def test_no_more_launches_than_requested_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own code runs in the process that plans them."""
    _, processes = measured(monkeypatch, first([4.0], "99"), *[launch([5.0])] * 4)
    assert len(processes.asked) == VARIANT.budget.launches == 5


def test_what_failed_is_not_launched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Part(Outcome("failed", "no"), facts={"launches": "3"})
    part, processes = measured(monkeypatch, failed)
    assert (part.outcome, len(processes.asked)) == (Outcome("failed", "no"), 1)


def test_a_launch_times_what_was_saved(lab: Lab) -> None:
    result = lab.measure("original")
    budget = dataclasses.replace(result.variant.budget, min_iterations=30)
    variant = dataclasses.replace(result.variant, budget=budget)
    events: list[str] = []
    part = one_process.work(
        "time", variant, lab.work("original"), lambda event: events.append(event.get("stage", "")), "cpu", "2/3"
    )
    assert part.outcome == Outcome("ok")
    assert len(part.samples["cpu/latency_ms"]) == 10
    assert part.measurements["cpu/launches"] == 1
    assert not {"cpu/ram_peak_mib", "cpu/first_call_ms", "quality/accuracy"} & set(part.measurements)
    assert {"launch 2 of 3: restoring", "launch 2 of 3: warming up on cpu"} <= set(events)
