from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.records import Comparison, Failure, Row, Summary
from mlflow_compress.renderers.json import Json


def read(content: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(content, parse_constant=refuse)


def test_golden(comparison: Comparison, golden: Callable[[str, bytes], None]) -> None:
    golden("comparison.json", Json().render(comparison))


def test_it_holds_all_of_the_comparison(comparison: Comparison) -> None:
    data = read(Json().render(comparison))
    assert data["schema"] == 1
    rows = tuple(
        Row(
            **{
                **row,
                "notes": tuple(row["notes"]),
                "not_believed": tuple(row["not_believed"]),
                "cautions": tuple(row["cautions"]),
                "ratio_intervals": _pairs(row["ratio_intervals"]),
            }
        )
        for row in data["rows"]
    )
    failures = tuple(Failure(**failure) for failure in data["failures"])
    summaries = tuple(_summary(summary) for summary in data["summaries"])
    assert rows == comparison.rows
    assert failures == comparison.failures
    assert summaries == comparison.summaries
    for name in ("footnotes", "columns", "objectives"):
        assert tuple(data[name]) == getattr(comparison, name)
    for name in ("title", "language", "greater_is_better"):
        assert data[name] == getattr(comparison, name)


def _pairs(intervals: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(ends) for name, ends in intervals.items()}


def test_all_numbers_are_finite() -> None:
    row = Row("a", "b", "c", values={"cpu/x": float("nan"), "cpu/y": 1.0}, ratios={"cpu/x": float("inf")})
    data = read(Json().render(Comparison((row,))))
    assert data["rows"][0]["values"] == {"cpu/y": 1.0}
    assert data["rows"][0]["ratios"] == {}


@given(st.text(), st.text())
def test_any_text_survives(team: str, reason: str) -> None:
    comparison = Comparison((Row(team, "b", "c"),), (Failure(team, "b", "c", "failed", "", reason, "run1"),))
    data = read(Json().render(comparison))
    assert data["rows"][0]["team"] == team
    assert data["failures"][0]["reason"] == reason


def test_half_a_surrogate_pair_does_not_break_the_file() -> None:
    assert read(Json().render(Comparison((Row("\ud800", "b", "c"),))))["rows"][0]["team"] == "\ud800"


def _summary(data: dict[str, Any]) -> Summary:
    tuples = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    return Summary(**{**data, **tuples})
