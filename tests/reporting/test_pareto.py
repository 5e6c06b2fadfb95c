"""The table, the PNG and the page show the same verdict."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.records import Comparison, Row
from mlflow_compress.renderers.html import Html
from mlflow_compress.renderers.png import figure
from mlflow_compress.reporting import pareto, ranking
from mlflow_compress.reporting.chart_choices import Axis, axes, fronts, verdicts

SIZE, CPU, ACCURACY = "size/weights_mib", "cpu/latency_p50_ms", "quality/accuracy"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DATA = {"cpu": "Xeon, 2 threads", "quality": "abc, 100 samples"}


def row(method: str, size: float, accuracy: float, model: str = "yolo", cpu: float = 1.0, **fields: Any) -> Row:
    values = {SIZE: size, CPU: cpu, ACCURACY: accuracy}
    ratios = {} if method == "original" else {SIZE: size / 100, CPU: cpu / 10}
    return Row("alpha", model, method, values=values, ratios=ratios, circumstances=DATA, **fields)


def page_data(comparison: Comparison) -> Any:
    (data,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', Html().render(comparison).decode()
    )
    return json.loads(data)


def on_axes(data: Any) -> list[str]:
    return [data["start"][axis] for axis in "xy"]


def drawn_full(comparison: Comparison) -> set[tuple[float, float]]:
    """Return the points that the PNG draws as best: full, in axis coordinates."""
    scatter, _ = figure(comparison).axes
    return {
        (float(x), float(y))
        for line in scatter.lines
        if line.get_linestyle() == "None" and line.get_markerfacecolor() not in ("white", "none")
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }


TWO_MODELS = (
    row("original", 100, 0.90),
    row("int8", 25, 0.89),
    row("original", 50, 0.95, "vit"),
    row("int8", 20, 0.80, "vit"),
    row("int4", 90, 0.85, "vit"),
)


@pytest.mark.parametrize(
    ("objectives", "best"),
    [
        # Scored on the same data: yolo's original is beaten by vit's, which is smaller and better.
        (("quality", "size"), {("yolo", "int8"), ("vit", "original"), ("vit", "int8")}),
        (("size", "cpu"), {("yolo", "int8"), ("vit", "int8")}),  # without a score, models are not compared
    ],
)
def test_column_picture_and_page_of_two_models_agree(objectives: tuple[str, str], best: set[tuple[str, str]]) -> None:
    comparison = ranking.marked(ranking.directed(Comparison(TWO_MODELS)), objectives)
    assert {(row.model, row.method) for row in comparison.rows if row.dominated is False} == best

    chosen_axes = axes(comparison)
    assert chosen_axes is not None
    assert {(row.model, row.method) for front in fronts(comparison, chosen_axes) for row in front} == best
    names = {"quality": ACCURACY, "size": SIZE, "cpu": CPU}
    x, y = (names[name] for name in objectives)
    assert drawn_full(comparison) == {
        (row.values[x], row.values[y]) for row in comparison.rows if row.dominated is False
    }

    data = page_data(comparison)
    drawn_verdicts = next(
        number for key, number in data["verdicts"].items() if set(key.split("|")) == set(on_axes(data))
    )
    assert {
        (row.model, row.method) for row, number in zip(comparison.rows, drawn_verdicts, strict=True) if number >= 0
    } == best
    groups = [number if number >= 0 else -1 - number for number in drawn_verdicts]
    assert groups == [row.ranked_in for row in comparison.rows]
    assert [data["metrics"][index]["label"] for index in data["ranked"]["axes"]] == [
        {"quality": "accuracy", "size": "weights, MB", "cpu": "CPU inference time, median, ms"}[name]
        for name in objectives
    ]
    assert on_axes(data) == [str(index) for index in data["ranked"]["axes"]]


def test_the_verdict_stays_the_columns_where_rows_are_left_out() -> None:
    comparison = ranking.best(ranking.marked(ranking.directed(Comparison(TWO_MODELS)), ("quality", "size")), "size")
    assert [(row.model, row.method) for row in comparison.rows if row.dominated] == [("yolo", "original")]
    chosen_axes = axes(comparison)
    assert chosen_axes is not None
    best = {(row.model, row.method) for front in fronts(comparison, chosen_axes) for row in front}
    assert best == {("yolo", "int8"), ("vit", "original"), ("vit", "int8")}


def test_a_third_objective_counts_in_the_picture_too() -> None:
    rows = (row("a", 1, 0.9, cpu=9.0), row("b", 2, 0.8, cpu=1.0))
    comparison = ranking.marked(ranking.directed(Comparison(rows)), ("quality", "size", "cpu"))
    assert [row.dominated for row in comparison.rows] == [False, False]
    assert len(drawn_full(comparison)) == 2
    assert page_data(comparison)["ranked"]["has_line"] is False


def test_what_may_be_compared() -> None:
    smaller, larger = row("a", 1, 0.9), row("b", 2, 0.8, "vit")
    assert pareto.peers(smaller, ["size"]) != pareto.peers(larger, ["size"])
    assert pareto.peers(smaller, ["size", "quality"]) == pareto.peers(larger, ["size", "quality"])
    assert pareto.peers(smaller, ["quality"], against_originals=True) != pareto.peers(
        larger, ["quality"], against_originals=True
    )
    elsewhere = dataclasses.replace(smaller, circumstances={**DATA, "cpu": "EPYC"})
    assert pareto.peers(smaller, ["cpu"]) != pareto.peers(elsewhere, ["cpu"])
    assert pareto.peers(smaller, ["size"]) == pareto.peers(elsewhere, ["size"])
    by_hand = dataclasses.replace(smaller, by_hand=True, team="beta")
    assert pareto.peers(by_hand, ["size"]) != pareto.peers(dataclasses.replace(by_hand, team="gamma"), ["size"])


@pytest.mark.parametrize("objectives", [("size", "cpu"), ("size", "quality")])
def test_copied_rows_are_compared_in_their_own_table_alone(objectives: tuple[str, str]) -> None:
    small, large = row("small", 1, 0.9), row("large", 2, 0.8)

    def copied(measured: Row, table: str) -> Row:
        return dataclasses.replace(measured, by_hand=True, table=table)

    for one, other, is_compared in (
        (small, large, True),
        (small, copied(large, "one"), False),
        (copied(small, "one"), large, False),
        (copied(small, "one"), copied(large, "two"), False),
        (copied(small, "one"), copied(large, "one"), True),
    ):
        comparison = ranking.marked(ranking.directed(Comparison((one, other))), objectives)
        assert [row.dominated for row in comparison.rows] == [False, is_compared]
        for relative in (False, True):
            chosen_axes = (Axis(SIZE, relative=relative), Axis(CPU, relative=relative))
            judged = verdicts(dataclasses.replace(comparison, objectives=()), chosen_axes)
            assert [verdict and verdict[0] for verdict in judged] == [False, is_compared]
        on_page = page_data(dataclasses.replace(comparison, objectives=()))["verdicts"]["0|1"]
        assert (on_page[0], on_page[1] < 0) == (0, is_compared)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_beaten_is_what_it_is_by_definition(costs: list[tuple[int, int, int]]) -> None:
    def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    assert pareto.beaten(costs) == [any(beats(one, other) for one in costs) for other in costs]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_the_columns_verdict_is_drawn(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    comparison = ranking.marked(ranking.directed(Comparison(TWO_MODELS)), ("quality", "size"))
    file = tmp_path / "page.html"
    file.write_bytes(Html().render(comparison))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    process = subprocess.run(
        [CHROMIUM, *options, profile, "--virtual-time-budget=3000", "--dump-dom", file.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    fills = re.findall(r'<path class="point k\d+ (full|hollow)"[^>]*role="img"', process.stdout.decode())
    verdicts = sorted(fills)
    assert verdicts == ["full"] * 3 + ["hollow"] * 2
    assert process.stdout.decode().count('<path class="front"') == 1
