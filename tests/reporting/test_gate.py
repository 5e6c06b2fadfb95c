from __future__ import annotations

import pytest

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison, Failure, Row
from mlflow_compress.reporting.gate import PRESETS, Demands, Drop, misses

ALL = {"cpu/latency_p50_ms": 0.5, "gpu/latency_p50_ms": 0.9, "size/weights_mib": 0.3, "cpu/ram_peak_mib": 0.8}


def reasons(
    demands: Demands, ratios: dict[str, float] | None = None, values: dict[str, float] | None = None
) -> list[str]:
    row = Row("alpha", "yolo", "int8", ratios=ALL if ratios is None else ratios, values=values or {})
    return [miss.reason for miss in misses(Comparison((Row("alpha", "yolo", "original"), row)), demands)]


@pytest.mark.parametrize(
    "demands",
    [
        Demands(min_speedup=2.0),
        Demands(max_size_ratio=0.3),
        Demands(max_memory_ratio=0.8),
        Demands(min_speedup=1.1, device="gpu"),
        Demands(min_speedup=2.0, max_size_ratio=0.3, max_memory_ratio=0.8),
    ],
)
def test_what_reaches_its_demands_passes(demands: Demands) -> None:
    assert reasons(demands) == []


@pytest.mark.parametrize(
    ("demands", "reason"),
    [
        (Demands(min_speedup=2.1), "2.00x as fast as the original, not 2.1x"),
        (Demands(max_size_ratio=0.29), "size is 0.300x of the original's, more than 0.29x"),
        (Demands(max_memory_ratio=0.7), "CPU peak RAM is 0.800x of the original's, more than 0.7x"),
        (Demands(min_speedup=1.5, device="gpu"), "1.11x as fast as the original, not 1.5x"),
    ],
)
def test_what_misses_says_by_how_much(demands: Demands, reason: str) -> None:
    assert reasons(demands) == [reason]


def test_the_size_on_disk_counts_where_it_is_less() -> None:
    ratios = {"size/weights_mib": 1.0, "size/disk_mib": 0.14}
    assert reasons(Demands(max_size_ratio=0.2), ratios) == []


def test_what_was_not_measured_misses() -> None:
    everything = Demands(1.0, Drop(1.0, relative=False), 1.0, 1.0)
    assert [reason.partition(":")[0] for reason in reasons(everything, {})] == [
        "CPU inference time, median",
        "size",
        "CPU peak RAM",
        "quality",
    ]


@pytest.mark.parametrize(
    ("name", "own", "difference", "drop", "passes"),
    [
        ("accuracy", 0.792, -0.008, "1%", True),  # of 0.8
        ("accuracy", 0.791, -0.009, "1%", False),
        ("accuracy", 0.81, 0.01, "0", True),
        ("accuracy", 0.795, -0.005, "0.005", True),
        ("accuracy", 0.794, -0.006, "0.005", False),
        ("wer", 0.109, 0.009, "1%", True),  # 0.891 of 0.9 words are right
        ("wer", 0.11, 0.01, "1%", False),
        ("wer", 0.11, 0.01, "0.01", True),
        ("perplexity", 10.1, 0.1, "1%", True),
        ("perplexity", 10.2, 0.2, "1%", False),
    ],
)
def test_quality(name: str, own: float, difference: float, drop: str, passes: bool) -> None:
    values = {f"quality/{name}": own, f"quality/{name}_difference": difference}
    found = reasons(Demands(max_quality_drop=Drop.read(drop)), values=values)
    assert (found == []) is passes
    assert passes or "lost, more than" in found[0]


def test_mlperfs_rule() -> None:
    assert Drop.read("1%") == PRESETS["mlperf"]


@pytest.mark.parametrize("text", ["", "%", "one", "-1%", "nan", "inf%"])
def test_a_drop_that_is_none(text: str) -> None:
    with pytest.raises(RecipeError, match="is no drop of quality"):
        Drop.read(text)


def test_what_failed_misses_and_what_was_skipped_does_not() -> None:
    failures = tuple(Failure("a", "m", status, status, "cpu", "why", "run1") for status in ("failed", "skipped"))
    (miss,) = misses(Comparison((), failures), Demands(min_speedup=1.0))
    assert (miss.method, miss.reason) == ("failed", "failed: why")
