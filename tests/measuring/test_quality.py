"""Scoring as a part of measuring; see `test_rescore` for scoring saved predictions."""

from __future__ import annotations

from lab import Lab

from mlflow_compress.records import Outcome


def test_quality_is_scored_where_the_model_runs(lab: Lab) -> None:
    result = lab.measure("int8_dynamic", devices=("cpu", "cuda"))
    assert result.outcomes["gpu"].status == "skipped"
    assert result.outcomes["quality"] == Outcome("ok")
    assert result.measurements["quality/samples"] == 40


def test_a_failed_score_leaves_what_was_timed(lab: Lab) -> None:
    result = lab.measure("original", source="broken.py")
    assert result.status == "failed"
    failure = Outcome("failed", "broken.py, line 32, in predict: RuntimeError: no idea")
    assert result.outcomes == {"cpu": Outcome("ok"), "quality": failure}
    assert result.measurements["cpu/latency_p50_ms"] > 0
    assert "quality/accuracy" not in result.measurements
