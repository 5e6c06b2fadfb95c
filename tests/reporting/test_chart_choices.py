from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.records import Comparison, Failure, Row
from mlflow_compress.reporting import ranking
from mlflow_compress.reporting.chart_choices import Axis, axes, bars, charted, fronts, joined, metrics, verdicts

SIZE, CPU, ACCURACY = "size/weights_mib", "cpu/latency_p50_ms", "quality/accuracy"
LESS = {SIZE: False, CPU: False, ACCURACY: True}


def row(method: str, size: float, time: float, model: str = "yolo", **scores: float) -> Row:
    """Return a row whose original took 100 MB and 10 ms."""
    ratios = {} if method == "original" else {SIZE: size / 100, CPU: time / 10}
    values = {SIZE: size, CPU: time, **{f"quality/{name}": value for name, value in scores.items()}}
    return Row("alpha", model, method, values=values, ratios=ratios)


def comparison(*rows: Row, objectives: tuple[str, ...] = ()) -> Comparison:
    return Comparison(rows, objectives=objectives, greater_is_better=LESS)


def test_metrics_leave_out_what_is_about_another_number() -> None:
    details = ("p50_stderr_ms", "p50_low_ms", "p50_high_ms", "launch_sd", "ratio", "ratio_low", "ratio_high")
    values = {CPU: 1.0, "cpu/launches": 5.0, "cpu/pairs": 3.0, **{f"cpu/latency_{name}": 1.0 for name in details}}
    scores = {f"{ACCURACY}{end}": 0.5 for end in ("", "_low", "_high", "_difference", "_difference_low")}
    assert metrics([Row("a", "b", "c", values={**values, **scores, "cpu/load_s": math.nan})]) == (
        CPU,
        ACCURACY,
    )


def test_what_failed_is_in_no_chart_and_keeps_its_place() -> None:
    failed = [
        Failure("alpha", "yolo", "ruined", "failed", "", "what was restored differs", "ruined"),
        Failure("alpha", "yolo", "measured before", "failed", "", "out of memory", "a later run"),
        Failure("alpha", "yolo", "slow", "failed", "cpu", "timed out", "a later run"),
        Failure("alpha", "yolo", "scored before", "failed", "quality", "killed", "a later run"),
        Failure("alpha", "yolo", "no GPU", "skipped", "gpu", "no GPU here", "a later run"),
        Failure("alpha", "yolo", "running", "in_progress", "", "not ended", "a later run"),
        Failure("beta", "yolo", "another team's", "failed", "", "killed", "a later run"),
    ]
    names = [*(failure.method for failure in failed), "copied"]
    rows = [row(name, 1, 0.1, accuracy=0.9) for name in names]
    rows[-1] = dataclasses.replace(rows[-1], by_hand=True)
    copied = Failure("alpha", "yolo", "copied", "failed", "", "killed", "a later run")
    compared = dataclasses.replace(comparison(*rows), failures=(*failed, copied))
    all_metrics, sizes = {SIZE, CPU, ACCURACY}, {SIZE, CPU}
    drawn_metrics = {row.method: (set(row.values), set(row.ratios)) for row in charted(compared).rows}
    assert drawn_metrics == {
        "ruined": (set(), set()),
        "measured before": (set(), set()),
        "slow": ({SIZE, ACCURACY}, {SIZE}),
        "scored before": ({SIZE, CPU}, sizes),
        "no GPU": (all_metrics, sizes),
        "running": (all_metrics, sizes),
        "another team's": (all_metrics, sizes),
        "copied": (all_metrics, sizes),
    }
    assert list(drawn_metrics) == names


def test_the_objectives_are_drawn() -> None:
    ranked = ranking.marked(
        comparison(row("original", 100, 10), row("fp16", 50, 8), row("a", 1, 1, "vit")), ["size", "cpu"]
    )
    assert axes(ranked) == (Axis(SIZE), Axis(CPU))
    scored = ranking.marked(
        comparison(row("original", 100, 10, wer=0.5), row("fp16", 50, 8, wer=0.6)), ["quality", "size"]
    )
    assert axes(scored) == (Axis("quality/wer"), Axis(SIZE))


def test_without_objectives_a_score_is_drawn_where_there_is_one_and_else_the_size() -> None:
    assert axes(comparison(row("original", 100, 10), row("fp16", 50, 8))) == (Axis(CPU), Axis(SIZE))
    scored = (row("original", 100, 10, accuracy=0.9), row("fp16", 50, 8))
    assert axes(comparison(*scored)) == (Axis(CPU), Axis(ACCURACY))
    scored_late = row("original", 100, 10, output_error_rel_l2=0.1, samples=9.0, wer=0.2)
    assert axes(comparison(scored_late)) == (Axis(CPU), Axis("quality/wer"))


def test_several_models_are_drawn_against_their_originals() -> None:
    rows = (row("original", 100, 10), row("fp16", 50, 8), row("original", 100, 10, "bert"), row("fp16", 50, 8, "bert"))
    compared = comparison(*rows)
    assert axes(compared) == (Axis(CPU, relative=True), Axis(SIZE, relative=True))
    assert axes(dataclasses.replace(compared, rows=(rows[0], rows[2]))) == (Axis(CPU), Axis(SIZE))


@pytest.mark.parametrize("rows", [(), (Row("a", "b", "c"),), (Row("a", "b", "c", values={SIZE: math.nan}),)])
def test_nothing_is_drawn_of_nothing(rows: tuple[Row, ...]) -> None:
    assert axes(comparison(*rows)) is None
    assert bars(comparison(*rows)) is None


def test_bars_are_about_time_rather_than_size() -> None:
    assert bars(comparison(row("original", 100, 10), row("fp16", 50, 8))) == CPU
    assert bars(comparison(Row("a", "b", "c", values={SIZE: 1.0}, ratios={SIZE: 0.5}))) == SIZE


def test_a_score_stands_to_the_original_by_its_difference() -> None:
    compressed = row("fp16", 50, 8, accuracy=0.8, accuracy_difference=-0.1)
    assert Axis(ACCURACY, relative=True).value(compressed) == -0.1
    assert Axis(SIZE, relative=True).value(compressed) == 0.5
    assert Axis("gpu/latency_p50_ms", relative=True).value(compressed) is None
    original = row("original [batch 16]", 100, 10, accuracy=0.9)
    assert (Axis(ACCURACY, relative=True).value(original), Axis(SIZE, relative=True).value(original)) == (0.0, 1.0)


def test_axes_have_names_for_people() -> None:
    assert Axis(CPU).label("en") == "CPU inference time, median, ms"
    assert Axis(CPU, relative=True).label("en") == "CPU inference time, median, relative to the original"
    assert Axis(ACCURACY, relative=True).label("en") == "accuracy, difference from the original"
    assert Axis(SIZE, relative=True).label("ru") == "веса, относительно оригинала"


def test_only_the_same_model_on_the_same_hardware_is_better() -> None:
    slow = dataclasses.replace(row("fp16", 60, 20), circumstances={"cpu": "laptop"})
    rows = (row("int8", 50, 8), slow, row("fp16", 70, 30, "bert"), row("bf16", 60, 9))
    front_rows = fronts(comparison(*rows), (Axis(SIZE), Axis(CPU)))
    assert front_rows == ((rows[0],), (rows[1],), (rows[2],))
    relative = fronts(comparison(*rows), (Axis(SIZE, relative=True), Axis(CPU, relative=True)))
    assert relative == ((rows[0],), (rows[2],))
    hardware_and_distance = fronts(comparison(*rows), (Axis(SIZE, relative=True), Axis(CPU)))
    assert hardware_and_distance == ((rows[0],), (rows[1],), (rows[2],))


def test_without_a_direction_nothing_is_better() -> None:
    assert fronts(comparison(row("fp16", 50, 8)), (Axis(SIZE), Axis("size/params"))) == ()


@pytest.mark.parametrize(("size", "time", "is_beaten"), [(50, 9.5, False), (50, 90, False), (51, 9.5, True)])
def test_a_time_of_unknown_noise_beats_nobody(size: float, time: float, is_beaten: bool) -> None:
    compared = comparison(row("int8", 50, 9), row("fp16", size, time))
    for relative in (False, True):
        chosen_axes = (Axis(SIZE, relative=relative), Axis(CPU, relative=relative))
        assert verdicts(compared, chosen_axes) == [(False, 0), (is_beaten, 0)]


def test_known_noise_decides_on_axes_against_the_original_too() -> None:
    compared = comparison(row("int8", 50, 9), row("fp16", 50, 9.5))
    sure = [
        dataclasses.replace(row, ratio_intervals={CPU: (row.ratios[CPU] * 0.99, row.ratios[CPU] * 1.01)})
        for row in compared.rows
    ]
    for rows, is_beaten in ((sure, True), ([sure[0], compared.rows[1]], False)):
        for relative in (False, True):
            chosen_axes = (Axis(SIZE, relative=relative), Axis(CPU, relative=relative))
            assert verdicts(comparison(*rows), chosen_axes) == [(False, 0), (is_beaten, 0)]


def test_a_row_that_is_worse_by_noise_is_on_the_front_but_off_its_line() -> None:
    compared = comparison(row("int8", 50, 9), row("fp16", 50, 9.5), row("int4", 25, 12))
    chosen_axes = (Axis(SIZE), Axis(CPU))
    (front,) = fronts(compared, chosen_axes)
    assert [row.method for row in front] == ["int4", "int8", "fp16"]
    assert [row.method for row in joined(compared, front, chosen_axes)] == ["int4", "int8"]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_a_front_holds_just_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    rows = [
        row("fp16", size, 1, accuracy=score, accuracy_low=score - 0.001, accuracy_high=score + 0.001)
        for size, score in points
    ]
    (front,) = fronts(comparison(*rows), (Axis(SIZE), Axis(ACCURACY)))

    def dominated(size: int, score: int) -> bool:
        return any(a <= size and b >= score and (a, b) != (size, score) for a, b in points)

    on_front = sorted((row.values[SIZE], row.values[ACCURACY]) for row in front)
    assert on_front == sorted(point for point in points if not dominated(*point))
