"""The parts of several processes are combined into one Result."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mlflow_compress.errors import Cause
from mlflow_compress.measuring.combine import combine, unmeasured
from mlflow_compress.records import Caution, Outcome, Part, Variant

VARIANT = Variant("tiny", "original", "alpha", "python", "model.py")


@pytest.mark.parametrize(
    ("parts", "status", "reason"),
    [
        ({"prepare": "ok", "cpu": "ok"}, "ok", ""),
        ({"prepare": "ok", "cpu": "ok", "cuda": "skipped"}, "ok", "gpu: why cuda"),
        ({"prepare": "ok", "cpu": "skipped", "cuda": "skipped"}, "skipped", "cpu: why cpu; gpu: why cuda"),
        ({"prepare": "ok", "cpu": "failed", "cuda": "skipped"}, "failed", "cpu: why cpu; gpu: why cuda"),
        ({"prepare": "ok", "cpu": "ok", "cuda": "failed"}, "failed", "gpu: why cuda"),
        ({"prepare": "skipped"}, "skipped", "why prepare"),
        ({"prepare": "failed"}, "failed", "why prepare"),
    ],
)
def test_a_variant_fares_as_its_parts_do(parts: dict[str, Any], status: str, reason: str) -> None:
    by_name = {name: Part(Outcome(state, "" if state == "ok" else f"why {name}")) for name, state in parts.items()}
    result = combine(VARIANT, by_name, 5.0)
    assert (result.status, result.reason, result.started_s) == (status, reason, 5.0)
    assert set(result.outcomes) == {"gpu" if name == "cuda" else name for name in parts if name != "prepare"}


def test_parts_are_put_together() -> None:
    repeated = Caution("busy_machine", "busy")
    parts = {
        "prepare": Part(Outcome("ok"), None, {"size/disk_mib": 1.0}, cautions=(repeated,), facts={"weights": "random"}),
        "cpu": Part(
            Outcome("ok"),
            Outcome("failed", "no idea"),
            {"cpu/load_ms": 2.0, "cpu/energy_j": float("nan")},
            {"cpu/latency_ms": [1.0]},
            (repeated, Caution("unstable", "wild")),
            {"threads": "2"},
        ),
    }
    result = combine(VARIANT, parts, 0.0)
    assert result.measurements == {"size/disk_mib": 1.0, "cpu/load_ms": 2.0}
    assert result.samples == {"cpu/latency_ms": [1.0]}
    assert [caution.code for caution in result.cautions] == ["busy_machine", "unstable"]
    assert result.environment["threads"] == "2"
    assert result.facts == {"weights": "random"}
    assert (result.status, result.reason) == ("failed", "quality: no idea")


@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        ({"prepare": Part(Outcome("ok")), "cpu": Part(Outcome("ok"))}, ""),
        ({"prepare": Part(Outcome("skipped", "why"))}, ""),
        ({"prepare": Part(Outcome("skipped", "no GPU", "machine"))}, "machine"),
        (
            {
                "prepare": Part(Outcome("ok")),
                "cpu": Part(Outcome("ok")),
                "cuda": Part(Outcome("skipped", "", "machine")),
            },
            "",
        ),
        ({"prepare": Part(Outcome("failed", "no weights", "weights"))}, "weights"),
        ({"prepare": Part(Outcome("failed", "killed"))}, "measuring"),  # a process that left no part
        ({"prepare": Part(Outcome("ok")), "cpu": Part(Outcome("failed", "what?", "recipe"))}, "recipe"),
        (
            {
                "prepare": Part(Outcome("ok")),
                "cpu": Part(Outcome("failed", "killed")),
                "cuda": Part(Outcome("failed", "", "recipe")),
            },
            "measuring",
        ),
    ],
)
def test_a_result_keeps_why_it_failed_or_was_skipped(parts: dict[str, Part], cause: Cause) -> None:
    assert combine(VARIANT, parts, 0.0).cause == cause


@pytest.mark.parametrize(("status", "cause"), [("skipped", ""), ("failed", "measuring")])
def test_what_no_machine_measured_is_a_result_too(status: Any, cause: str) -> None:
    before = time.time()
    result = unmeasured(VARIANT, status, "no machine has a GPU")
    assert (result.variant, result.status, result.cause) == (VARIANT, status, cause)
    assert result.reason == "no machine has a GPU"
    assert (len(result.measurements), len(result.outcomes)) == (0, 0)
    assert before <= result.started_s <= result.ended_s
