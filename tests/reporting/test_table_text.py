from __future__ import annotations

import doctest
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress import words
from mlflow_compress.records import Comparison, Failure, Row, Summary
from mlflow_compress.reporting import table_text

COURSE_HEADER = (
    "Модель | Метод | Размер весов | Время инференса (CPU, ms) | Время инференса (GPU, ms) | "
    "Использование RAM (MB) | Использование VRAM (MB) | Качество"
)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(table_text).failed == 0


def test_the_russian_header_is_the_courses_own() -> None:
    assert " | ".join(table_text.headers(table_text.COLUMNS, "ru")) == f"Команда | {COURSE_HEADER}"


def test_the_english_header_has_the_same_columns() -> None:
    assert table_text.headers(table_text.COLUMNS, "en")[0] == "Team"
    assert (
        len(table_text.headers(table_text.COLUMNS, "en"))
        == len(table_text.headers(table_text.COLUMNS, "ru"))
        == len(table_text.COLUMNS)
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (492.7215, "492.7"),
        (999.96, "1000"),
        (24808.46, "24808"),
        (0.9722, "0.9722"),
        (0.05123456, "0.05123"),
        (-3.14159, "-3.142"),
        (1e-9, "1e-09"),
        (1.5e15, "1.5e+15"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert table_text.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(96.66796875, "96.67"), (922.146, "922.15"), (0.03124, "0.0312")])
def test_megabytes(value: float, text: str) -> None:
    assert table_text.megabytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.50016, "0.50x"), (1.0, "1.00x"), (0.0271, "0.027x"), (123.4, "123x")])
def test_ratio(value: float, text: str) -> None:
    assert table_text.ratio(value) == text


@given(st.floats(-1e300, 1e300))
def test_a_written_number_is_near_the_number(value: float) -> None:
    assert math.isclose(float(table_text.number(value)), value, rel_tol=1e-3)
    assert len(table_text.number(value)) <= 14


@pytest.mark.parametrize(
    ("on_disk", "cell"),
    [(0.14, "48.35 MB (1.00x; 0.14x on disk)"), (0.95, "48.35 MB (1.00x)"), (None, "48.35 MB (1.00x)")],
)
def test_what_only_the_saved_model_gains_is_shown(on_disk: float | None, cell: str) -> None:
    ratios = {"size/weights_mib": 1.0} | ({} if on_disk is None else {"size/disk_mib": on_disk})
    row = Row("alpha", "yolo", "cluster", values={"size/weights_mib": 48.349, "size/disk_mib": 7.0}, ratios=ratios)
    assert table_text.cells(row, table_text.COLUMNS, "en")[3] == cell
    assert table_text.cells(row, table_text.COLUMNS, "ru")[3] == cell.replace("on disk", "на диске")


def test_cells_of_a_row() -> None:
    row = Row(
        "alpha",
        "yolo",
        "fp16",
        values={
            "size/weights_mib": 48.349,
            "cpu/latency_p50_ms": 379.0,
            "quality/wer": 0.0426,
            "quality/accuracy": 0.9722,
            "quality/samples": 360.0,
        },
        ratios={"size/weights_mib": 0.50016, "cpu/latency_p50_ms": 0.7692, "quality/wer": 1.1},
    )
    assert table_text.cells(row, table_text.COLUMNS, "en") == (
        "alpha",
        "yolo",
        "fp16",
        "48.35 MB (0.50x)",
        "379.0 (0.77x)",
        "-",
        "-",
        "-",
        "0.9722 accuracy, 0.04260 WER (n=360)",
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"quality/wer": 0.5, "quality/samples": 30.0, "quality/samples_worse": 2.0, "quality/samples_better": 1.0},
            "0.5000 WER (n=30; 2 worse, 1 better), 0.2500 arc (n=40)",
        ),
        (
            {"quality/samples": 40.0, "quality/samples_worse": 2.0, "quality/samples_better": 1.0},
            "0.2500 arc (n=40; 2 worse, 1 better)",
        ),
        (
            {"quality/moo": 0.5, "quality/moo_samples": 9.0, "quality/samples": 49.0, "quality/samples_worse": 2.0}
            | {"quality/samples_better": 1.0},
            "0.2500 arc (n=40), 0.5000 moo (n=9)",
        ),
    ],
)
def test_a_task_with_its_own_samples_states_their_number(values: dict[str, float], text: str) -> None:
    task = {"quality/arc": 0.25, "quality/arc_samples": 40.0, "quality/arc_stderr": 0.1, "quality/arc_low": 0.1}
    row = Row("alpha", "lm", "fp16", values={**task, **values})
    assert table_text.cells(row, table_text.COLUMNS, "en")[-1] == text


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("original", "Оригинал"),
        ("original [batch 16]", "Оригинал [batch 16]"),
        ("originality", "originality"),
        ("fp16", "fp16"),
    ],
)
def test_only_the_original_is_translated(method: str, expected: str) -> None:
    assert table_text.method(method, "ru") == expected


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_all_words_are_there_in_each_language(language: str) -> None:
    assert table_text.legend(Comparison((), language=language))
    assert table_text.summaries_title(language)
    titles = [table_text.failures_title([Failure("", "", "", status, "", "", "")], language) for status in words.STATUS]
    assert len(set(titles)) == 2  # the title names runs in progress, if any
    for status in ("failed", "skipped"):
        for device in ("", "cpu", "gpu", "quality"):
            failure = Failure("alpha", "yolo", "fp16", status, device, "", "run1")
            assert "alpha, yolo, fp16" in table_text.failure_lines([failure], language)[0]


def test_failures_say_what_where_and_why_and_one_reason_once() -> None:
    fp16 = Failure("alpha", "yolo", "fp16", "skipped", "gpu", "no such device", "run1")
    cpu_failures = [
        replace(fp16, method="bf16", run_id="run2"),
        replace(fp16, method="onnx", reason="no such file"),
        replace(fp16, model="bert"),
        replace(fp16, status="failed"),
    ]
    assert table_text.failure_lines([fp16, *cpu_failures], "en") == [
        "skipped (GPU): alpha, yolo, fp16, bf16: no such device",
        "skipped (GPU): alpha, yolo, onnx: no such file",
        "skipped (GPU): alpha, bert, fp16: no such device",
        "failed (GPU): alpha, yolo, fp16: no such device",
    ]


def test_memory_within_one_percent_is_noise_and_a_size_never_is() -> None:
    names = ("cpu/ram_peak_mib", "gpu/vram_peak_mib", "size/weights_mib")
    row = Row("a", "b", "c", values=dict.fromkeys(names, 500.0), ratios=dict.fromkeys(names, 1.008))
    assert [table_text.is_told_apart(row, name) for name in names] == [False, False, True]
    assert table_text.value_text(row, "cpu/ram_peak_mib", "en") == "500.0 (≈1.01x)"
    changed = replace(row, ratios=dict.fromkeys(names, 1.02))
    assert [table_text.is_told_apart(changed, name) for name in names] == [True, True, True]


def test_the_legend_explains_what_is_shown_and_nothing_else() -> None:
    measured, copied = Row("a", "b", "c"), Row("a", "b", "c", by_hand=True)
    objectives = ("size/weights_mib", "quality/wer")
    assert "hand" not in table_text.legend(Comparison((measured,)))
    assert "By hand: copied" in table_text.legend(Comparison((measured, copied)))
    assert "Pareto" not in table_text.legend(Comparison((measured,), objectives=objectives))
    comparison = Comparison((measured,), columns=("team", "pareto"), objectives=objectives, title="hw1")
    assert table_text.legend(comparison).endswith(
        ": weights, WER. A number with unknown noise does not separate rows. Experiment: hw1."
    )
    scored = replace(measured, values={"quality/wer": 0.1, "quality/cer": 0.1}, dominated=False)
    by_quality = Comparison((scored,), columns=("pareto",), objectives=("quality", "size/weights_mib"))
    assert "Where a row has several scores, the first one decides: WER." in table_text.legend(by_quality)
    assert ": quality (WER), weights." in table_text.legend(by_quality)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_legend_says_which_ratios_claim_nothing(language: str) -> None:
    names = ("cpu/latency_p50_ms", "cpu/latency_p90_ms", "cpu/energy_per_item_j", "cpu/ram_peak_mib", "size/disk_mib")
    row = Row("a", "b", "c", values=dict.fromkeys(names, 1.0), ratios=dict.fromkeys(names, 0.5))
    legend = table_text.legend(Comparison((row,), columns=names, language=language))
    unknown = ("cpu/latency_p90_ms", "cpu/energy_per_item_j")
    metrics = "; ".join(table_text.label(name, language, with_unit=False) for name in unknown)
    assert words.LEGEND_UNKNOWN[language].format(metrics=metrics) in legend
    sentence = words.LEGEND_UNKNOWN[language].partition("{metrics}")[2]
    assert sentence not in table_text.legend(Comparison((row,), language=language))  # the columns are not shown
    assert sentence not in table_text.legend(Comparison((replace(row, ratios={}),), columns=names, language=language))


SUMMARY = Summary(
    "int8_dynamic",
    models=9,
    ratios={"size/weights_mib": 0.27, "size/disk_mib": 0.26, "cpu/latency_p50_ms": 1 / 2.4, "cpu/throughput_per_s": 2},
    differences={"quality/accuracy": -0.002, "quality/wer": 0.0031},
    counts={"size/weights_mib": 9, "cpu/latency_p50_ms": 9, "quality/accuracy": 2, "quality/wer": 1},
)


def test_summary() -> None:
    assert table_text.summary(SUMMARY, "en") == (
        "int8_dynamic: 2.40x faster (CPU), 0.27x size, accuracy -0.0020 (2 models), WER +0.0031 (1 model), "
        "over 9 models"
    )
    assert table_text.summary(SUMMARY, "ru") == (
        "int8_dynamic: в 2.40 раза быстрее (CPU), размер 0.27x, accuracy -0.0020 (моделей: 2), "
        "WER +0.0031 (моделей: 1); моделей: 9"
    )


@pytest.mark.parametrize(
    ("ratios", "counts", "expected"),
    [
        ({"gpu/latency_p50_ms": 1.25}, {}, "x: 1.25x slower (GPU), over 3 models"),
        ({"cpu/latency_p50_ms": 1.001}, {}, "x: as fast (CPU), over 3 models"),
        ({"cpu/latency_p50_ms": 0.5}, {"cpu/latency_p50_ms": 2}, "x: 2.00x faster (CPU, 2 models), over 3 models"),
        ({"size/weights_mib": 1.0, "size/disk_mib": 0.2}, {}, "x: 1.00x size, 0.20x on disk, over 3 models"),
        ({"cpu/ram_peak_mib": 0.9, "gpu/vram_peak_mib": 0.5}, {}, "x: 0.90x RAM, 0.50x VRAM, over 3 models"),
        ({"cpu/latency_p50_ms": 0.0}, {}, "x, over 3 models"),
    ],
)
def test_a_summary_skips_what_is_missing(ratios: dict[str, float], counts: dict[str, int], expected: str) -> None:
    assert table_text.summary(Summary("x", 3, ratios, counts=counts), "en") == expected


def test_a_score_that_is_no_number_is_not_shown() -> None:
    row = Row("a", "b", "c", values={"quality/wer": math.nan, "quality/cer": 0.5, "quality/output_error_rel_l2": 0.1})
    assert table_text.cells(row, table_text.columns(("quality",)), "en") == ("0.5000 CER",)
    assert table_text.scores({"quality/wer": math.nan, "quality/output_error_rel_l2": 0.1}) == (
        "quality/output_error_rel_l2",
    )


def test_a_mean_over_one_model_is_not_shown() -> None:
    summaries = (SUMMARY, Summary("fp16", 1, {"size/weights_mib": 0.5}), Summary("bf16", 4))
    assert table_text.summaries(Comparison((), summaries=summaries)) == (table_text.summary(SUMMARY, "en"),)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("size/weights_mib", "weights, MB"),
        ("size/params", "parameters"),
        ("gpu/latency_p99_ms", "GPU inference time, p99, ms"),
        ("cpu/throughput_per_s", "CPU throughput, 1/s"),
        ("cpu/energy_per_item_estimated_j", "CPU energy per sample, estimated, J"),
        ("cpu/made_up_s", "CPU made up, s"),
        ("quality/map50_95", "mAP50-95"),
        ("quality/my_own", "my_own"),
        ("quality/wer_difference", "WER, difference from the original"),
    ],
)
def test_label(name: str, label: str) -> None:
    assert table_text.label(name, "en") == label


def test_the_tables_metrics_come_first_and_are_always_there() -> None:
    names = ["quality/wer", "cpu/p10", "cpu/p9", "size/params", "other/x", "gpu/latency_p50_ms"]
    assert table_text.ordered(names) == (
        *table_text.METRICS,
        "size/params",
        "cpu/p9",
        "cpu/p10",
        "quality/wer",
        "other/x",
    )


def test_natural_order() -> None:
    names = ["v10", "v2", "V1", "v02", "b", "10", "9", ""]
    assert sorted(names, key=table_text.natural) == ["", "9", "10", "b", "V1", "v02", "v2", "v10"]


@given(st.lists(st.text(alphabet="aA0129é٣ ")))
def test_natural_order_is_total(texts: list[str]) -> None:
    backwards = texts[::-1]
    assert sorted(texts, key=table_text.natural) == sorted(backwards, key=table_text.natural)


def test_natural_order_takes_thousands_of_digits() -> None:
    assert table_text.natural("1" * 5000) < table_text.natural("1" * 5001)


def test_a_size_on_disk_is_shown_with_the_size_in_memory() -> None:
    row = Row("alpha", "m", "x", {"size/weights_mib": 5.0}, {"size/weights_mib": 1.0, "size/disk_mib": 0.3})
    assert table_text.value_text(row, "size/weights_mib", "en") == "5.00 MB (1.00x; 0.30x on disk)"
    assert not table_text.is_packed_on_disk(replace(row, ratios={"size/disk_mib": 0.3}), "size/weights_mib")


def test_a_count_of_parameters_is_no_size_in_mb() -> None:
    row = Row("a", "b", "c", {"size/params": 66_955_010.0, "size/disk_mib": 3.0}, {"size/params": 0.5})
    assert table_text.value_text(row, "size/params", "en") == "66955010 (0.50x)"
    assert table_text.value_text(row, "size/disk_mib", "en") == "3.00 MB"


@pytest.mark.parametrize(
    ("score", "moved", "text"),
    [
        (0.91, -0.00051, "(≈-0.0005)"),
        (0.01785, 0.000007, "(≈+0.00001)"),
        (0.1071, 0.00004, "(≈0)"),
        (45.38, 0.0031, "(≈0)"),
        (1234.5, 2.4, "(≈+2)"),
        (0.91, -0.012, "(≈-0.012)"),
        (0.91, 0.0, "(±0)"),
        (1e-9, 2.1e-9, "(≈+2.1e-09)"),
        (0.0, -0.04, "(≈-0.040)"),
    ],
)
def test_a_difference_within_noise_is_no_finer_than_its_score(score: float, moved: float, text: str) -> None:
    name = "quality/wer"
    ends = {f"{name}_difference_low": moved - 9, f"{name}_difference_high": moved + 9}
    row = Row("a", "b", "c", {name: score, f"{name}_difference": moved, **ends})
    assert table_text.score_parts(row, name, "en")[1] == text


def test_a_difference_beyond_noise_keeps_its_digits() -> None:
    name = "quality/perplexity"
    ends = {f"{name}_difference_low": 0.001, f"{name}_difference_high": 0.005}
    row = Row("a", "b", "c", {name: 45.38, f"{name}_difference": 0.0031, **ends})
    assert table_text.score_parts(row, name, "en")[1] == "(+0.0031)"
