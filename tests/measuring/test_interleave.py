"""Measuring in turns with the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import Lab

from mlflow_compress.measuring import interleave, worker_process
from mlflow_compress.measuring.interleave import Side
from mlflow_compress.percentiles import launch_interval, launch_mean, launch_spread
from mlflow_compress.records import Budget, Outcome, Part, Variant


class _Roomy(Budget):
    """A budget that has time for all requested launches."""

    def launches_that_fit(self, restoring_s: float, call_s: float) -> int:
        return self.launches


def test_turns_are_taken_with_the_original(lab: Lab) -> None:
    result = lab.measure("drop_last:count=1", interleave=True)
    assert result.status == "ok", result.reason
    numbers, samples = result.measurements, result.samples
    assert numbers["cpu/rounds"] == len(samples["cpu/round_sizes"]) >= 4
    assert sum(samples["cpu/round_sizes"]) == len(samples["cpu/latency_ms"]) == numbers["cpu/latency_count"]
    assert len(samples["cpu/original_latency_ms"]) >= 4
    assert samples["cpu/ram_timeline_mib"]
    assert (numbers["cpu/pairs"], numbers["cpu/launches"]) == (1, 1)
    assert "cpu/latency_ratio_low" not in numbers  # one pair has no spread
    assert 0.2 < numbers["cpu/latency_ratio"] < 5  # one small layer less
    assert numbers["quality/accuracy"] > 0
    assert "launches" not in result.facts


def test_several_pairs_share_the_budget_and_give_the_ratio_its_interval(lab: Lab) -> None:
    budget = _Roomy(min_iterations=6, min_seconds=0.3, energy_seconds=0, timeout_seconds=120, launches=3)
    result = lab.measure("drop_last:count=2", interleave=True, budget=budget)
    assert result.status == "ok", result.reason
    numbers, samples = result.measurements, result.samples
    assert (numbers["cpu/pairs"], numbers["cpu/launches"]) == (3, 3)
    assert len(samples["cpu/launch_sizes"]) == len(samples["cpu/pair_sizes"]) == 3
    assert sum(samples["cpu/launch_sizes"]) == numbers["cpu/latency_count"] == len(samples["cpu/latency_ms"])
    assert sum(samples["cpu/pair_sizes"]) == numbers["cpu/rounds"]
    assert all(rounds >= 4 and rounds % 2 == 0 for rounds in samples["cpu/pair_sizes"])
    assert numbers["cpu/latency_p50_low_ms"] <= numbers["cpu/latency_p50_ms"] <= numbers["cpu/latency_p50_high_ms"]
    assert numbers["cpu/latency_ratio_low"] <= numbers["cpu/latency_ratio"] <= numbers["cpu/latency_ratio_high"]
    assert numbers["cpu/first_call_ms"] > 0


def test_the_original_takes_no_turns_with_itself(lab: Lab) -> None:
    result = lab.measure("original", interleave=True)
    assert result.status == "ok", result.reason
    assert "cpu/latency_ratio" not in result.measurements


def test_a_variant_that_dies_in_its_turn_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=sigkill,at=rebuild", interleave=True)
    assert result.status == "failed"
    assert "SIGKILL" in result.reason


def test_a_device_that_is_not_there_is_the_reason(lab: Lab) -> None:
    result = lab.measure("traced", interleave=True, devices=("cuda",))
    assert result.status == "failed"
    assert "this machine has no CUDA device" in result.reason


@dataclass
class Sides:
    """Two folders, and a fake program for the worker of both."""

    variant: Side
    base: Side
    program: Path

    def act(self, endings: list[str], base: str = "") -> None:
        """Make the processes write parts with these outcomes, or be killed for `die`.

        Args:
            endings: Outcomes of the variant in each pair: `ok`, `odd` (no rounds), `die`, or the reason of a failure.
            base: Outcome of the original; empty: `ok`.
        """
        outcomes = {"variant": endings, "base": [base or "ok"] * 9}
        self.program.write_text(f"OUTCOMES = {outcomes!r}\n{_FAKE}")

    def alternate(self) -> Part:
        return interleave.alternate(self.variant, self.base, "cpu", False, lambda event: None)


_FAKE = """
import json, os, signal, sys
from pathlib import Path

verb, folder, device = sys.argv[1:4]
work = Path(folder)
count = len(list(work.glob("seen-*")))
(work / f"seen-{count}").touch()
ending = OUTCOMES[work.name][count]
if ending == "die":
    os.kill(os.getpid(), signal.SIGKILL)
latencies, sizes = [], []
ms = (2.0 if work.name == "variant" else 1.0) + 0.01 * count
if ending in ("ok", "odd"):
    is_alone = not json.loads((work / "variant.json").read_text())["interleave"]
    turn = {"count": 0, "seconds": 0, "call_ms": 0}
    while not is_alone:
        print(json.dumps({"turn": turn}), flush=True)
        line = sys.stdin.readline()
        if float(line or 0) == 0:
            break
        if turn["call_ms"]:
            latencies += [ms] * 3
            sizes.append(3.0)
        turn = {"count": len(latencies), "seconds": 9, "call_ms": ms}
    if is_alone:
        latencies = [ms] * 3
samples = {"cpu/latency_ms": latencies, **({"cpu/round_sizes": sizes} if ending == "ok" else {})}
outcome = {"status": "ok"} if ending in ("ok", "odd") else {"status": "failed", "reason": ending}
part = {"outcome": outcome, "samples": samples, "measurements": {"cpu/first_call_ms": 5.0, "cpu/token_p50_ms": ms / 10}}
(work / f"{verb}-{device}.json").write_text(json.dumps(part))
"""


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sides:
    """Return two sides whose budget has time for three pairs."""
    program = tmp_path / "fake.py"
    monkeypatch.setattr(worker_process, "_PROGRAM", (str(program),))
    budget = _Roomy(min_iterations=6, min_seconds=0.01, timeout_seconds=60, launches=3)
    variant = Variant("tiny", "fp16", "alpha", "python", "x.py", budget=budget, interleave=True)
    folders = [tmp_path / name for name in ("variant", "base")]
    for folder in folders:
        folder.mkdir()
    return Sides(Side(variant, folders[0]), Side(variant, folders[1]), program)


@pytest.mark.full
def test_each_pair_gives_one_ratio(sides: Sides) -> None:
    sides.act(["ok", "ok", "ok"])
    part = sides.alternate()
    ratios = [2.0 / 1.0, 2.01 / 1.01, 2.02 / 1.02]
    assert part.measurements["cpu/latency_ratio"] == pytest.approx(launch_mean(ratios))
    assert part.measurements["cpu/token_ratio"] == pytest.approx(launch_mean(ratios))  # of a stage of the call
    ends = [part.measurements[f"cpu/latency_ratio_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx(launch_interval(ratios))
    assert part.measurements["cpu/latency_p50_ms"] == pytest.approx(launch_mean([2.0, 2.01, 2.02]))
    assert part.measurements["cpu/latency_launch_sd"] == pytest.approx(launch_spread([2.0, 2.01, 2.02]))
    assert part.samples["cpu/pair_sizes"] == [4, 4, 4]
    assert part.samples["cpu/original_latency_ms"] == [1.0] * 12 + [1.01] * 12 + [1.02] * 12
    assert "lost_launches" not in {caution.code for caution in part.cautions}


@pytest.mark.full
def test_a_pair_that_is_lost_costs_no_more_than_itself(sides: Sides) -> None:
    sides.act(["ok", "die", "ok"])
    part = sides.alternate()
    assert (part.outcome.status, part.measurements["cpu/pairs"], part.measurements["cpu/launches"]) == ("ok", 2, 2)
    assert "cpu/latency_ratio_low" not in part.measurements  # two give no interval
    lost = next(caution for caution in part.cautions if caution.code == "lost_launches")
    assert lost.message.startswith("cpu: 2 of 3 launches could be timed: the timing was killed by SIGKILL")


@pytest.mark.full
@pytest.mark.parametrize(
    ("endings", "base", "reason"),
    [
        (["ok", "ok"], "die", "the original: the timing was killed by SIGKILL"),
        (["ok", "ok"], "no such layer", "the original: no such layer"),
        (["out of memory: 9 GiB", "ok"], "", "with both in memory: out of memory: 9 GiB"),
    ],
)
def test_what_cannot_be_measured_together_is_measured_alone(
    sides: Sides, endings: list[str], base: str, reason: str
) -> None:
    sides.act(endings, base)
    part = sides.alternate()
    assert part.outcome == Outcome("ok")
    assert len(part.samples["cpu/latency_ms"]) == 3
    assert "cpu/latency_ratio" not in part.measurements
    (caution,) = [caution for caution in part.cautions if caution.code == "not_in_turns"]
    assert caution.message.startswith(f"cpu: measured alone, not in turns with the original: {reason}")


@pytest.mark.full
@pytest.mark.parametrize("ending", ["odd", "no such layer"])
def test_a_first_pair_without_latencies_has_failed(sides: Sides, ending: str) -> None:
    sides.act([ending])
    reason = "measure wrote no latencies of the rounds" if ending == "odd" else ending
    assert sides.alternate().outcome == Outcome("failed", reason)
