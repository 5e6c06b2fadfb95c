from __future__ import annotations

import dataclasses
import itertools
import struct
import warnings
from collections.abc import Iterable
from typing import Any

import pytest

from mlflow_compress.records import Comparison, Failure, Row, Summary
from mlflow_compress.renderers.png import MOST_BARS, Png, figure

pytestmark = pytest.mark.full  # drawing takes long

SIZE, CPU = "size/weights_mib", "cpu/latency_p50_ms"
LESS = {SIZE: False, CPU: False}


def rows(count: int, model: str = "yolo") -> list[Row]:
    original = Row("alpha", model, "original", values={SIZE: 100.0, CPU: 10.0})
    return [original] + [
        Row(
            "alpha",
            model,
            f"method{number}",
            values={SIZE: 100.0 - number, CPU: 10.0 + number},
            ratios={SIZE: 1 - number / 100, CPU: 1 + number / 10},
            ratio_intervals={CPU: (0.9, 1.2 + number / 10)},
        )
        for number in range(1, count)
    ]


def size_of(png: bytes) -> tuple[int, ...]:
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("language", ["en", "ru"])
def test_it_is_as_large_as_a_slide(comparison: Comparison, language: str) -> None:
    assert size_of(Png().render(dataclasses.replace(comparison, language=language))) == (2400, 1350)


def test_every_row_is_a_point_and_a_bar() -> None:
    scatter, barred = figure(Comparison(tuple(rows(5)), greater_is_better=LESS, objectives=(SIZE, CPU))).axes
    point_counts = [len(line.get_xdata()) for line in scatter.lines if line.get_linestyle() == "None"]
    assert sum(point_counts) == 5 + 1  # the original has a ring
    assert scatter.get_xlabel() == "weights, MB (lower is better)"
    assert len(barred.patches) == 4
    assert [text.get_text() for text in barred.get_yticklabels()] == [f"method{number}" for number in range(1, 5)]
    assert [text.get_text() for text in barred.texts] == ["≈1.10x", "≈1.20x", "≈1.30x", "≈1.40x"]


def test_it_says_how_many_bars_were_left_out() -> None:
    _, barred = figure(Comparison(tuple(rows(50)), greater_is_better=LESS)).axes
    assert len(barred.patches) == MOST_BARS
    assert "the best 30 of 49 rows" in barred.get_title(loc="right")


def test_above_that_the_bars_are_the_means_over_models() -> None:
    means = tuple(Summary(f"method{number}", 2, {CPU: 1 + number / 10}) for number in (1, 2, 3))
    of_one_row = Summary("fp16", 1, {CPU: 0.5})
    _, barred = figure(Comparison(tuple(rows(50)), greater_is_better=LESS, summaries=(*means, of_one_row))).axes
    assert [text.get_text() for text in barred.get_yticklabels()] == ["method1", "method2", "method3"]
    assert "geometric means over the models" in barred.get_title(loc="right")


def test_models_are_not_compared_with_one_another() -> None:
    comparison = Comparison((*rows(3), *rows(3, "bert")), greater_is_better=LESS, objectives=(SIZE, CPU))
    scatter, _ = figure(comparison).axes
    assert scatter.get_xlabel() == "weights, relative to the original (lower is better)"
    assert len([line for line in scatter.lines if line.get_linestyle() == "--"]) == 2


def test_only_what_the_column_calls_beaten_is_hollow() -> None:
    third = "cpu/energy_per_item_j"
    verdicts = zip(rows(3), (True, False, None), strict=True)  # the last row has no energy: it was not ranked
    ranked = tuple(dataclasses.replace(row, dominated=verdict) for row, verdict in verdicts)
    comparison = Comparison(ranked, greater_is_better={**LESS, third: False}, objectives=(SIZE, CPU, third))
    scatter, _ = figure(comparison).axes
    faces = [line.get_markerfacecolor() for line in scatter.lines if line.get_linestyle() == "None"]
    assert faces.count("white") == 1
    assert not [line for line in scatter.lines if line.get_linestyle() == "--"], "of three numbers there is no line"
    legend = [text.get_text() for text in scatter.figure.legends[0].get_texts()]
    assert not [text for text in legend if "no other" in text]
    assert [text for text in legend if "hollow" in text]
    unbeaten = tuple(dataclasses.replace(row, dominated=None) for row in ranked[:1])
    (legend_of_one,) = figure(dataclasses.replace(comparison, rows=unbeaten)).legends
    assert not [text for text in legend_of_one.get_texts() if "hollow" in text.get_text()], "there is none to explain"


def boxes(texts: Iterable[Any]) -> list[Any]:
    return [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]


LONG = "prune_structured:amount=0.3+openvino_int8:preset=performance"


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize(
    ("sizes", "times"),
    [
        ((100.0, 99.0), (10.0, 9.9)),
        ((100.0, 0.3), (10.0, 4e5)),
        ((1e-6, 1e9), (1e-9, 1e9)),
        ((96.67, 48.3), (7.0, 3.0)),
    ],
)
def test_no_label_covers_another(language: str, sizes: tuple[float, ...], times: tuple[float, ...]) -> None:
    original = Row("alpha", "yolo", "original", values={SIZE: sizes[0], CPU: times[0]})
    compressed = []
    for name, part in ((LONG, 1.0), (f"{LONG} 2", 0.7), ("int8", 0.4), ("Метод", 0.0)):
        values = {metric: low + (high - low) * part for metric, (low, high) in ((SIZE, sizes), (CPU, times))}
        ratios = {metric: value / original.values[metric] for metric, value in values.items()}
        compressed.append(Row("Команда", "yolo", name, values, ratios))
    comparison = Comparison((original, *compressed), language=language, greater_is_better=LESS, objectives=(SIZE, CPU))
    picture = figure(comparison)
    picture.draw_without_rendering()
    scatter, barred = picture.axes
    for axis in (scatter.xaxis, scatter.yaxis, barred.xaxis, barred.yaxis):
        labels = boxes(axis.get_majorticklabels())
        assert len(labels) >= 2
        assert not any(one.overlaps(other) for one, other in itertools.combinations(labels, 2))
    names, numbers = boxes(barred.get_yticklabels()), boxes(barred.texts)
    bars = [patch.get_window_extent() for patch in barred.patches]
    assert not any(one.overlaps(other) for one in numbers for other in [*names, *bars])
    assert not any(name.overlaps(scatter.get_window_extent()) for name in names)
    (legend,) = picture.legends
    for box in [*names, *numbers, legend.get_window_extent(), barred.title.get_window_extent()]:
        assert picture.bbox.x0 <= box.x0
        assert box.x1 <= picture.bbox.x1


def test_a_legend_of_many_long_names_stays_on_the_picture() -> None:
    values = {SIZE: 50.0, CPU: 5.0}
    long_rows = tuple(Row("alpha", "yolo", f"{number:02}_{'W' * 60}", values) for number in range(14))
    picture = figure(Comparison(long_rows, greater_is_better=LESS))
    picture.draw_without_rendering()
    box = picture.legends[0].get_window_extent()
    assert picture.bbox.x0 <= box.x0
    assert box.x1 <= picture.bbox.x1


def test_what_failed_as_a_whole_is_not_drawn() -> None:
    *intact, ruined = rows(4)
    ruined = dataclasses.replace(ruined, runs={"cpu": "r1"})
    failures = (Failure("alpha", "yolo", ruined.method, "failed", "", "the output differs", "r1"),)
    scatter, barred = figure(
        Comparison((*intact, ruined), failures, greater_is_better=LESS, objectives=(SIZE, CPU))
    ).axes
    assert sum(len(line.get_xdata()) for line in scatter.lines if line.get_linestyle() == "None") == len(intact) + 1
    assert len(barred.patches) == len(intact) - 1


@pytest.mark.parametrize(
    "name", ["$x$", "$\\frac{", "_private", "🙂 модель 日本語", "a\nb\x00c", "\ud800", "x" * 500, "", "%s {0}"]
)
def test_a_name_is_only_a_name(name: str) -> None:
    row = Row(name, name, name, values={SIZE: 50.0, CPU: 5.0}, ratios={SIZE: 0.5, CPU: 0.5})
    comparison = Comparison((*rows(2, name), row), title=name, greater_is_better=LESS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size_of(Png().render(comparison)) == (2400, 1350)


def test_a_strange_name_is_in_the_legend_as_it_is() -> None:
    row = Row("alpha", "yolo", "_$x$", values={SIZE: 50.0, CPU: 5.0}, ratios={SIZE: 0.5, CPU: 0.5})
    picture = figure(Comparison((*rows(2), row), greater_is_better=LESS))
    (legend,) = picture.legends
    assert " _$x$" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("comparison", [Comparison(()), Comparison((Row("a", "b", "c"),))])
def test_nothing_to_draw_is_said(comparison: Comparison) -> None:
    assert size_of(Png().render(comparison)) == (2400, 1350)
    assert all("No row has numbers" in plot.texts[0].get_text() for plot in figure(comparison).axes)
