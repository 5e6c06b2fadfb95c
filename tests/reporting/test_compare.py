from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import pytest

from mlflow_compress.records import Caution, CautionKind, Comparison, Reference, Row, Run
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.table_text import COLUMNS, cells, is_original, value_text

MakeRun = Callable[..., Run]
P50 = "cpu/latency_p50_ms"
ONE_LAUNCH = "one launch: noise unknown"


def names(comparison: Comparison) -> list[tuple[str, str, str]]:
    return [(row.team, row.model, row.method) for row in comparison.rows]


def notes(comparison: Comparison, row: Row) -> list[str]:
    return [comparison.footnotes[note] for note in row.notes]


def test_nothing_gives_an_empty_comparison() -> None:
    assert compare([]) == Comparison(rows=())


def test_only_variants_are_rows(make_run: MakeRun) -> None:
    runs = [make_run(tags={"compress.role": role}) for role in ("sweep", None, "variant")]
    assert len(compare(runs).rows) == 1


def test_ratio_to_the_original(make_run: MakeRun) -> None:
    runs = [
        make_run(),
        make_run(method="fp16", metrics={"size/weights_mib": 50.0, "cpu/latency_p50_ms": 20.0, "size/params": 7.0}),
    ]
    original, fp16 = compare(runs).rows
    assert original.method == "original"
    assert original.ratios == {}
    assert fp16.ratios == {"size/weights_mib": 0.5, "cpu/latency_p50_ms": 2.0}


def test_a_cpu_run_and_a_gpu_run_make_one_row(make_run: MakeRun) -> None:
    laptop = make_run(
        cpu="ok", metrics={"cpu/latency_p50_ms": 10.0, "size/params": 1.0, "quality/wer": 0.5, "quality/samples": 9.0}
    )
    server = make_run(gpu="ok", metrics={"gpu/latency_p50_ms": 1.0, "cpu/latency_p50_ms": 99.0, "size/params": 2.0})
    (row,) = compare([laptop, server]).rows
    assert row.values == {
        "cpu/latency_p50_ms": 10.0,
        "gpu/latency_p50_ms": 1.0,
        "size/params": 2.0,
        "quality/wer": 0.5,
        "quality/samples": 9.0,
    }
    assert row.runs == {"cpu": laptop.run_id, "gpu": server.run_id}


def test_the_newest_good_run_counts_and_the_newer_failure_is_listed(make_run: MakeRun) -> None:
    old, newest_good = make_run(metrics={"cpu/latency_p50_ms": 1.0}), make_run(metrics={"cpu/latency_p50_ms": 2.0})
    failed = make_run(cpu="failed", tags={"compress.reason.cpu": "out of memory"})
    comparison = compare([newest_good, failed, old])
    assert comparison.rows[0].runs == {"cpu": newest_good.run_id}
    (failure,) = comparison.failures
    assert (failure.device, failure.status, failure.reason, failure.run_id) == (
        "cpu",
        "failed",
        "out of memory",
        failed.run_id,
    )


def test_a_model_that_only_another_machine_can_run_has_a_row_with_its_size(make_run: MakeRun) -> None:
    reason = {"status": "skipped", "compress.reason.cpu": "measure this row on a Mac"}
    sized = make_run(method="coreml", cpu="skipped", tags=reason, metrics={"size/weights_mib": 50.0})
    comparison = compare([make_run(), sized])
    row = comparison.rows[1]
    assert (row.values, row.ratios) == ({"size/weights_mib": 50.0}, {"size/weights_mib": 0.5})
    assert row.runs == {"size": sized.run_id}
    assert [(failure.device, failure.reason) for failure in comparison.failures] == [
        ("cpu", "measure this row on a Mac")
    ]
    measured = make_run(method="coreml", metrics={"size/weights_mib": 49.0, P50: 1.0})
    later = compare([make_run(), sized, measured])
    assert later.failures == ()
    assert (later.rows[1].values["size/weights_mib"], later.rows[1].values[P50]) == (49.0, 1.0)


def test_a_failure_made_good_is_forgotten(make_run: MakeRun) -> None:
    runs = [make_run(cpu="failed"), make_run(tags={"status": "failed"}, cpu="failed"), make_run()]
    assert compare(runs).failures == ()


def test_only_the_failed_device_is_listed(make_run: MakeRun) -> None:
    run = make_run(
        method="int8", cpu="ok", gpu="skipped", tags={"compress.reason.gpu": "CPU only", "compress.reason": "gpu: ..."}
    )
    comparison = compare([run])
    assert len(comparison.rows) == 1
    assert [(failure.device, failure.status, failure.reason) for failure in comparison.failures] == [
        ("gpu", "skipped", "CPU only")
    ]


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_run_that_came_to_no_device(make_run: MakeRun, status: str) -> None:
    run = make_run(tags={"compress.outcome.cpu": None, "status": status, "compress.reason": "does not apply"}, cpu="x")
    (failure,) = compare([run]).failures
    assert (failure.status, failure.device, failure.reason) == (status, "", "does not apply")


def test_a_run_in_progress_is_no_failure(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.outcome.cpu": None, "status": None}, lifecycle="RUNNING")
    comparison = compare([run])
    assert comparison.rows == ()
    failure = comparison.failures[0]
    assert (failure.team, failure.model, failure.method, failure.status) == ("alpha", "yolo", "original", "in_progress")
    assert failure.reason.startswith("the run has not ended yet")


def test_a_run_in_progress_is_forgotten_once_another_did(make_run: MakeRun) -> None:
    runs = [make_run(tags={"compress.outcome.cpu": None, "status": None}, lifecycle="RUNNING"), make_run()]
    assert compare(runs).failures == ()


def test_a_killed_run_without_a_result(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.outcome.cpu": None, "status": None}, lifecycle="KILLED")
    assert compare([run]).failures[0].reason == "the run ended without a result"


def test_a_good_run_without_outcomes_is_recognised_by_its_numbers(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.outcome.cpu": None})
    assert compare([run]).rows[0].runs == {"cpu": run.run_id}
    empty = make_run(tags={"compress.outcome.cpu": None}, metrics={})
    assert compare([empty]).failures[0].reason == "the run has no numbers"


def test_scoring_that_failed_keeps_the_timing(make_run: MakeRun) -> None:
    run = make_run(cpu="ok", quality="failed", tags={"compress.reason.quality": "no such data"})
    comparison = compare([run])
    assert comparison.rows[0].runs == {"cpu": run.run_id}
    assert [(failure.device, failure.reason) for failure in comparison.failures] == [("quality", "no such data")]
    assert compare([run, make_run(cpu="ok", quality="ok")]).failures == ()


def test_a_variant_that_failed_although_its_devices_are_good(make_run: MakeRun) -> None:
    run = make_run(tags={"status": "failed", "compress.reason": "the disk is full"})
    comparison = compare([run])
    assert len(comparison.rows) == 1
    assert comparison.failures[0].reason == "the disk is full"


def test_order_is_natural_and_the_original_first(make_run: MakeRun) -> None:
    expected = [
        ("alpha", "model2", "original"),
        ("alpha", "model2", "cluster"),
        ("alpha", "model2", "int4"),
        ("alpha", "model2", "int10"),
        ("alpha", "model10", "original"),
        ("Beta", "model1", "fp16"),
        ("team 2", "m", "original"),
        ("team 10", "m", "original"),
    ]
    runs = [make_run(model, method, team) for team, model, method in reversed(expected)]
    assert names(compare(runs)) == expected
    for seed in range(5):
        shuffled = random.Random(seed).sample(runs, len(runs))
        assert compare(shuffled) == compare(runs)


def test_runs_of_the_same_moment_are_ordered_by_id(make_run: MakeRun) -> None:
    first, second = make_run(), make_run()
    of_same_time = Run(second.run_id, "hw1", "", "FINISHED", first.started_ms, second.tags, {}, second.metrics)
    assert compare([first, of_same_time]) == compare([of_same_time, first])


def test_another_batch_size_is_another_row_with_its_own_original(make_run: MakeRun) -> None:
    big = {"compress.batch_size": "16"}
    runs = [
        make_run(),
        make_run(tags=big, metrics={"cpu/latency_p50_ms": 100.0}),
        make_run(method="fp16", tags=big, metrics={"cpu/latency_p50_ms": 50.0}),
        make_run(method="fp16", tags={"compress.batch_size": "4"}),
    ]
    comparison = compare(runs)
    assert [row.method for row in comparison.rows] == [
        "original",
        "original [batch 16]",
        "fp16 [batch 4]",
        "fp16 [batch 16]",
    ]
    assert comparison.rows[1].ratios == {}
    assert comparison.rows[3].ratios == {"cpu/latency_p50_ms": 0.5}
    assert comparison.rows[2].ratios == {}
    assert "no original" in notes(comparison, comparison.rows[2])[0]


def test_another_teams_original_serves_and_is_named(make_run: MakeRun) -> None:
    runs = [
        make_run(team="old", metrics={"cpu/latency_p50_ms": 1.0}),
        make_run(team="new", metrics={"cpu/latency_p50_ms": 20.0}),
        make_run(team="mine", method="fp16"),
    ]
    comparison = compare(runs[2:], originals=runs[:2])
    (row,) = comparison.rows
    assert row.ratios == {"cpu/latency_p50_ms": 0.5}
    assert notes(comparison, row) == ["compared with the original of team new", ONE_LAUNCH]


@pytest.mark.parametrize(
    ("device", "tag", "value", "expected"),
    [
        ("cpu", "cpu_model", "EPYC", "processor: EPYC, the original's: Xeon"),
        ("cpu", "threads", "8", "threads: 8, the original's: 2"),
        ("gpu", "gpu_model", "H200", "GPU: H200, the original's: T4"),
        ("gpu", "gpu_model", None, "GPU: unknown, the original's: T4"),
    ],
)
def test_different_hardware_is_never_compared(
    make_run: MakeRun, device: str, tag: str, value: str | None, expected: str
) -> None:
    numbers = {"cpu/latency_p50_ms": 10.0, "gpu/latency_p50_ms": 1.0, "size/weights_mib": 1.0}
    runs = [
        make_run(cpu="ok", gpu="ok", metrics=numbers),
        make_run(method="fp16", cpu="ok", gpu="ok", metrics=numbers, tags={f"compress.env.{tag}": value}),
    ]
    comparison = compare(runs)
    (row,) = (row for row in comparison.rows if row.method == "fp16")
    assert f"{device}/latency_p50_ms" not in row.ratios
    assert len(row.ratios) == 2
    note, noise = notes(comparison, row)
    assert note.startswith(f"{device.upper()}: not compared")
    assert noise == ONE_LAUNCH
    assert expected in note


def test_random_weights_have_a_footnote(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.weights": "random", "compress.cautions": "random_weights"})
    comparison = compare([run])
    assert notes(comparison, comparison.rows[0]) == [
        "random weights: size, latency and memory are true, quality was not measured"
    ]


def test_random_weights_of_one_run_only(make_run: MakeRun) -> None:
    runs = [
        make_run(cpu="ok", metrics={"quality/wer": 0.5}),
        make_run(gpu="ok", tags={"compress.weights": "random"}),
    ]
    comparison = compare(runs)
    assert notes(comparison, comparison.rows[0])[0].startswith("random weights in the GPU run")


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_caution_brings_its_words_with_its_run(make_run: MakeRun, language: str) -> None:
    own = [
        CautionKind("new", {"en": "it is new", "ru": "оно новое"}, {"en": "n={n}"}, {"en": ""}).of(n=1),
        CautionKind("silent", {}, {"en": "said elsewhere"}, {"en": ""}).of(),
        Caution("of_a_plugin", "the plugin of 0.1 says this"),
        Caution("of_a_plugin", "and this"),
    ]
    tags = {f"compress.caution.{number}": caution.to_text() for number, caution in enumerate(own, 1)}
    tags |= {
        "compress.caution.5": "no JSON",
        "compress.caution.6": '{"code":"stale","short":{"en":"of an earlier log"}}',
    }
    run = make_run(tags={**tags, "compress.cautions": "new,silent,of_a_plugin,of_a_plugin,unheard_of"})
    comparison = compare([run], language=language)
    prefix, first = {"en": ("caution", "it is new"), "ru": ("осторожно", "оно новое")}[language]
    cautions_shown = [first, "the plugin of 0.1 says this", "and this", "unheard_of"]
    assert notes(comparison, comparison.rows[0]) == [f"{prefix}: {text}" for text in cautions_shown]


def test_cautions_are_footnotes(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.cautions": "busy_machine, made_up_code,random_weights"})
    comparison = compare([run])
    assert notes(comparison, comparison.rows[0]) == [
        "caution: made_up_code",
        "caution: the machine was busy",
    ]


def test_rows_share_a_footnote(make_run: MakeRun) -> None:
    busy = {"compress.cautions": "busy_machine"}
    comparison = compare([make_run(tags=busy), make_run(method="fp16", tags=busy)])
    assert [row.notes for row in comparison.rows] == [(0,), (0, 1)]
    assert comparison.footnotes == ("caution: the machine was busy", ONE_LAUNCH)


def test_russian(make_run: MakeRun) -> None:
    comparison = compare([make_run(tags={"compress.cautions": "busy_machine"})], language="ru")
    assert comparison.language == "ru"
    assert comparison.footnotes == ("осторожно: машина была занята другой работой",)


def test_numbers_that_are_none_are_left_out(make_run: MakeRun) -> None:
    numbers = {
        "cpu/a": float("nan"),
        "cpu/b": float("inf"),
        "cpu/c": 1.7976931348623157e308,
        "cpu/d": 0.0,
        "cpu/e": 1.0,
    }
    runs = [make_run(metrics=numbers), make_run(method="fp16", metrics={"cpu/d": 1.0, "cpu/e": 3.0})]
    original, fp16 = compare(runs).rows
    assert original.values == {"cpu/d": 0.0, "cpu/e": 1.0}
    assert fp16.ratios == {"cpu/e": 3.0}


def test_metrics_of_other_groups_are_none_of_ours(make_run: MakeRun) -> None:
    run = make_run(metrics={"system/cpu": 1.0, "cpu_x/y": 1.0, "loss": 1.0, "gpu/latency_p50_ms": 1.0, "cpu/x": 1.0})
    assert compare([run]).rows[0].values == {"cpu/x": 1.0}


def test_what_is_not_shown_is_still_compared_with(make_run: MakeRun) -> None:
    original, fp16 = make_run(), make_run(method="fp16")
    comparison = compare([fp16], originals=[original])
    assert names(comparison) == [("alpha", "yolo", "fp16")]
    assert comparison.rows[0].ratios
    assert comparison.failures == ()


def test_one_device_alone(make_run: MakeRun) -> None:
    metrics = {"size/params": 7.0, "cpu/latency_p50_ms": 1.0, "gpu/latency_p50_ms": 2.0}
    run = make_run(cpu="ok", gpu="ok", metrics=metrics)
    comparison = compare([run, make_run("vit", cpu="ok"), make_run("bert", gpu="failed")], devices=["gpu"])
    assert names(comparison) == [("alpha", "yolo", "original")]
    assert comparison.rows[0].values == {"size/params": 7.0, "gpu/latency_p50_ms": 2.0}
    assert [failure.model for failure in comparison.failures] == ["bert"]


def test_every_run_has_a_row_if_asked_for(make_run: MakeRun) -> None:
    runs = [make_run(metrics={"cpu/latency_p50_ms": float(milliseconds)}) for milliseconds in (4, 2)]
    older, newer = compare(runs, every_run=True).rows
    assert newer.ratios == {}
    assert older.ratios == {"cpu/latency_p50_ms": 2.0}
    assert older.method == newer.method == "original [1970-01-01 00:00 UTC]"


def test_originals_of_the_same_hardware_stand_together_each_with_its_variants(make_run: MakeRun) -> None:
    epyc = {"compress.env.cpu_model": "EPYC"}
    runs = [
        make_run(cpu="ok", gpu="ok"),
        make_run(method="int8", cpu="ok"),  # on the CPU alone: still next to its original
        make_run(team="beta", tags=epyc),
        make_run(team="beta", method="int8", tags=epyc),
        make_run(team="beta", method="bf16", cpu="ok", gpu="ok"),  # another machine: still next to its original
        make_run(team="beta", method="fp16", cpu="ok", gpu="ok", tags=epyc),  # also on a GPU
        make_run(team="gamma", method="fp16", tags=epyc),  # compared with another team's original
        make_run(team="gamma", method="int8"),
    ]
    comparison = compare(runs)
    assert comparison.columns[-1] == "hardware"
    assert [(row.team, row.method, row.hardware) for row in comparison.rows] == [
        ("beta", "original", "EPYC, 2 threads"),
        ("beta", "bf16", "Xeon, 2 threads; T4"),
        ("beta", "fp16", "EPYC, 2 threads; T4"),
        ("beta", "int8", "EPYC, 2 threads"),
        ("gamma", "fp16", "EPYC, 2 threads"),
        ("alpha", "original", "Xeon, 2 threads; T4"),
        ("alpha", "int8", "Xeon, 2 threads"),
        ("gamma", "int8", "Xeon, 2 threads"),
    ]
    assert compare(runs[:2]).columns == (), "a GPU run beside a CPU run tells no two machines apart"


def test_a_model_on_the_processor_alone_stands_where_its_name_belongs(make_run: MakeRun) -> None:
    epyc = {"compress.env.cpu_model": "EPYC"}
    runs = [
        make_run(model="bert", cpu="ok", gpu="ok"),
        make_run(model="alexnet", cpu="ok"),
        make_run(model="clip", gpu="ok"),
        make_run(model="zoo", team="beta", tags=epyc),
    ]
    assert [row.model for row in compare(runs[:3]).rows] == ["alexnet", "bert", "clip"]
    assert [row.model for row in compare(runs).rows] == ["zoo", "alexnet", "bert", "clip"], "EPYC stands before Xeon"


def test_what_does_not_know_its_hardware_makes_no_column(make_run: MakeRun) -> None:
    unknown = {"compress.source": "imported", "compress.env.cpu_model": None, "compress.env.threads": None}
    assert compare([make_run(cpu="ok"), make_run(team="beta", tags=unknown)]).columns == ()


def test_what_was_copied_by_hand_says_so_and_is_compared_within_its_team(make_run: MakeRun) -> None:
    unknown = {f"compress.env.{name}": None for name in ("cpu_model", "threads", "gpu_model")}
    tags = {"compress.source": "imported", **unknown}
    of_one_team = compare([make_run(tags=tags), make_run(method="ONNX", tags=tags)])
    assert [row.by_hand for row in of_one_team.rows] == [True, True]
    assert of_one_team.rows[1].ratios["cpu/latency_p50_ms"] == 1.0
    measured, copied = make_run(metrics={"size/params": 1.0}), make_run(tags=tags, metrics={"size/params": 2.0})
    assert compare([measured, copied]).rows[0].values == {"size/params": 1.0}
    of_beta = compare([make_run(tags=tags), make_run(team="beta", method="ONNX", tags=tags)]).rows[1]
    assert "cpu/latency_p50_ms" not in of_beta.ratios


def test_title_names_the_experiments(make_run: MakeRun) -> None:
    assert compare([make_run()]).title == "hw1"
    assert compare([make_run()], title="mine").title == "mine"


def test_names_come_from_params_where_tags_are_missing(make_run: MakeRun) -> None:
    run = make_run(tags={"model": None})
    untagged = Run(run.run_id, "hw1", "", "FINISHED", 1, run.tags, {"model": "vit"}, run.metrics)
    assert names(compare([untagged])) == [("alpha", "vit", "original")]


def test_a_setting_is_a_row_of_its_own_against_its_own_original(make_run: MakeRun) -> None:
    runs = [
        make_run(metrics={"cpu/latency_p50_ms": 10.0}),
        make_run(metrics={"cpu/latency_p50_ms": 40.0}, tags={"compress.setting": "tokens=256"}),
        make_run(
            method="fp16",
            metrics={"cpu/latency_p50_ms": 20.0},
            tags={"compress.setting": "tokens=256", "compress.batch_size": "4"},
        ),
        make_run(method="fp16", metrics={"cpu/latency_p50_ms": 20.0}, tags={"compress.setting": "tokens=256"}),
    ]
    rows = {row.method: row for row in compare(runs).rows}
    assert list(rows) == ["original", "original [tokens=256]", "fp16 [tokens=256]", "fp16 [batch 4, tokens=256]"]
    assert rows["fp16 [tokens=256]"].ratios == {"cpu/latency_p50_ms": 0.5}
    assert rows["fp16 [batch 4, tokens=256]"].ratios == {}


def launched(median: float, spread: float, launches: float = 5.0) -> dict[str, float]:
    return {P50: median, "cpu/launches": launches, "cpu/latency_launch_sd": spread}


def test_the_interval_of_a_ratio_rests_on_launches(make_run: MakeRun) -> None:
    """Computed by hand: with 5 launches each and 1 % the error is sqrt(2 * 0.0001 / 5) = 0.632 %, t(4) = 2.776."""
    runs = [make_run(metrics=launched(10.0, 0.01)), make_run(method="fp16", metrics=launched(9.8, 0.01))]
    _, row = compare(runs).rows
    width = 2.7764451 * (2 * 0.01**2 / 5) ** 0.5
    assert row.ratio_intervals[P50] == pytest.approx((0.98 * math.exp(-width), 0.98 * math.exp(width)))
    assert row.ratio_degrees[P50] == pytest.approx(4.0)
    assert row.told_apart == {P50: True}  # ln 0.98 is 3.19 errors from 0, p = 0.033
    assert row.notes == ()
    assert cells(row, COLUMNS, "en")[4] == "9.800 (0.98x)"


@pytest.mark.parametrize(("spread", "cell"), [(0.01, "9.800 (0.98x)"), (0.02, "9.800 (≈0.98x)")])
def test_a_difference_within_the_noise_of_launches_is_shown_as_such(
    make_run: MakeRun, spread: float, cell: str
) -> None:
    runs = [make_run(metrics=launched(10.0, spread)), make_run(method="fp16", metrics=launched(9.8, spread))]
    assert cells(compare(runs).rows[1], COLUMNS, "en")[4] == cell


def test_the_claims_of_a_table_are_judged_together(make_run: MakeRun) -> None:
    """Alone p = 0.033; with five equal claims, Holm multiplies the smallest by five: 0.17."""
    runs = [make_run(metrics=launched(10.0, 0.01)), make_run(method="fp16", metrics=launched(9.8, 0.01))]
    runs += [make_run(method=f"x{number}", metrics=launched(10.0, 0.01)) for number in range(4)]
    row = next(row for row in compare(runs).rows if row.method == "fp16")
    assert row.ratio_intervals[P50][1] < 1, "the interval of it alone leaves 1 out"
    assert row.told_apart == {P50: False}
    assert cells(row, COLUMNS, "en")[4] == "9.800 (≈0.98x)"


TOKENS, MEAN_RATE = "cpu/tokens_per_s", "cpu/throughput_per_s"


@pytest.mark.parametrize(("spread", "is_told_apart"), [(0.01, True), (0.02, False)])
def test_a_rate_that_is_made_of_the_median_claims_what_the_median_claims(
    make_run: MakeRun, spread: float, is_told_apart: bool
) -> None:
    """Both are one claim: as two, p = 0.033 would not be below 5 %. A rate from the mean makes no claim."""
    original = {**launched(10.0, spread), TOKENS: 320.0, MEAN_RATE: 99.0}
    runs = [
        make_run(metrics=original),
        make_run(method="fp16", metrics={**launched(9.8, spread), TOKENS: 3200 / 9.8, MEAN_RATE: 101.0}),
        make_run(method="other", metrics={P50: 9.8, TOKENS: 1000.0}),
    ]
    _, row, of_another_median = compare(runs).rows
    low, high = row.ratio_intervals[P50]
    assert row.ratios[TOKENS] == pytest.approx(1 / 0.98)
    assert row.ratio_intervals == {P50: (low, high), TOKENS: pytest.approx((1 / high, 1 / low))}
    assert row.told_apart == {P50: is_told_apart, TOKENS: is_told_apart}
    assert value_text(row, TOKENS, "en") == f"326.5 ({'' if is_told_apart else '≈'}1.02x)"
    assert (of_another_median.ratios[TOKENS], of_another_median.ratio_intervals) == (3.125, {}), (
        "of another median, or of none"
    )


def test_a_rate_of_the_median_follows_its_ratio_in_turns(make_run: MakeRun) -> None:
    in_turns = {"cpu/latency_ratio": 0.5, "cpu/latency_ratio_low": 0.4, "cpu/latency_ratio_high": 0.8, "cpu/pairs": 3.0}
    runs = [
        make_run(metrics={P50: 10.0, TOKENS: 320.0}),
        make_run(method="fp16", metrics={P50: 5.5, TOKENS: 3200 / 5.5, **in_turns}),
    ]
    row = compare(runs).rows[1]
    assert (row.ratios[TOKENS], row.ratio_intervals[TOKENS], row.ratio_degrees[TOKENS]) == (2.0, (1.25, 2.5), 2.0)


@pytest.mark.parametrize(
    ("language", "note"), [("en", "one launch: noise unknown"), ("ru", "один запуск: шум неизвестен")]
)
def test_one_launch_claims_nothing(make_run: MakeRun, language: str, note: str) -> None:
    old = {"cpu/latency_p50_stderr_ms": 0.001}  # the error of the calls within one process
    runs = [make_run(metrics={**launched(10.0, 0.01), **old}), make_run(method="fp16", metrics={P50: 5.0, **old})]
    comparison = compare(runs, language=language)
    row = comparison.rows[1]
    assert (row.ratios[P50], row.ratio_intervals, row.told_apart) == (0.5, {}, {})
    assert cells(row, COLUMNS, language)[4] == "5.000 (0.50x)"
    assert notes(comparison, row) == [note]


TURNS = {"cpu/launches": 1.0, "cpu/latency_ratio": 0.5}


@pytest.mark.parametrize(
    ("own", "original", "note"),
    [
        (launched(5.0, 0.01, 2.0), launched(10.0, 0.01), "two launches: noise unknown"),
        ({P50: 5.0, **TURNS, "cpu/pairs": 2.0}, launched(10.0, 0.01), "two launches: noise unknown"),
        (launched(5.0, 0.01), {P50: 10.0}, "the original was launched fewer than three times: noise unknown"),
        (
            launched(5.0, 0.01),
            launched(10.0, 0.01, 2.0),
            "the original was launched fewer than three times: noise unknown",
        ),
        (
            {P50: 5.0, **TURNS, "cpu/pairs": 5.0, "cpu/latency_ratio_low": 0.6, "cpu/latency_ratio_high": 0.7},
            launched(10.0, 0.01),
            "the spread of its launches was not recorded: noise unknown",
        ),
    ],
)
def test_the_note_says_whose_launches_are_too_few(
    make_run: MakeRun, own: dict[str, float], original: dict[str, float], note: str
) -> None:
    comparison = compare([make_run(metrics=original), make_run(method="fp16", metrics=own)])
    row = comparison.rows[1]
    assert (row.ratios[P50], row.ratio_intervals) == (0.5, {})
    assert notes(comparison, row) == [note]


def test_earlier_launches_of_a_variant_show_its_noise(make_run: MakeRun) -> None:
    """Computed by hand: logarithms of 10, 11 and 12.1 are 9.531 % apart: the standard deviation with 2 degrees."""
    earlier = [make_run(metrics={P50: median}) for median in (11.0, 12.1, 10.0)]
    elsewhere = make_run(method="fp16", metrics={P50: 900.0}, tags={"compress.env.cpu_model": "EPYC"})
    twice = make_run(metrics={P50: 10.0})  # the newest run again, under another id
    runs = [*earlier, twice, elsewhere, make_run(method="fp16", metrics=launched(5.0, 0.01))]
    row = compare(runs).rows[1]
    assert row.ratio_degrees[P50] == 2, "the fewer of 2 and 4"
    low, high = row.ratio_intervals[P50]
    assert math.sqrt(low * high) == pytest.approx(0.5)
    assert math.log(high / 0.5) == pytest.approx(4.302653 * math.hypot(math.log(1.1), 0.01 / math.sqrt(5)))
    assert row.notes == ()
    few = compare([*earlier[1:], make_run(method="fp16", metrics=launched(5.0, 0.01))]).rows[1]
    assert few.ratio_intervals == {}, "two launches are one too few"


ENV = "compress.env."
COMPLETE = {
    "compress.work": "3f2a91bc: [1, 16] int64",
    f"{ENV}cores": "2",
    f"{ENV}cpu_flags": "avx2 avx512f",
    f"{ENV}torch": "2.14.1",
    f"{ENV}runtime": "torch 2.14.1",
    f"{ENV}gpu_power_limit_w": "400",
    f"{ENV}gpu_tf32": "none",
}


@pytest.mark.parametrize(
    ("device", "tag", "value", "expected"),
    [
        ("cpu", "compress.work", "77777777: [1, 128] int64", "one call: [1, 128] int64, the original's: [1, 16] int64"),
        ("cpu", "compress.work", "77777777: [1, 16] int64", "one call: 77777777: [1, 16] int64, the original's: 3f2a"),
        ("cpu", f"{ENV}cores", "1.5", "cores allowed: 1.5, the original's: 2"),
        ("cpu", f"{ENV}cpu_flags", "avx2 amx_int8", "CPU instructions: amx_int8, the original's: avx512f"),
        ("cpu", f"{ENV}torch", "2.15.0", "torch: 2.15.0, the original's: 2.14.1"),
        ("cpu", f"{ENV}runtime", "torch 2.15.0", "runtime: torch 2.15.0, the original's: torch 2.14.1"),
        ("gpu", f"{ENV}gpu_power_limit_w", "700", "power limit, W: 700, the original's: 400"),
        ("gpu", f"{ENV}gpu_tf32", "matmul", "TF32: matmul, the original's: none"),
    ],
)
def test_only_like_is_divided_by_like(make_run: MakeRun, device: str, tag: str, value: str, expected: str) -> None:
    numbers = {f"{device}/latency_p50_ms": 10.0, f"{device}/energy_per_item_j": 1.0, "size/weights_mib": 1.0}
    original = make_run(metrics=numbers, tags={**COMPLETE}, **{device: "ok"})
    variant = make_run(method="fp16", metrics=numbers, tags={**COMPLETE, tag: value}, **{device: "ok"})
    comparison = compare([original, variant])
    assert comparison.rows[1].ratios == {"size/weights_mib": 1.0}
    (note,) = notes(comparison, comparison.rows[1])
    assert note.startswith(
        f"{device.upper()}: not compared with the original, which was measured under different condit"
    )
    assert expected in note
    assert comparison.columns == (), "it is the same hardware"


def test_another_runtime_of_a_variant_is_legitimate(make_run: MakeRun) -> None:
    numbers = {P50: 10.0}
    exported = {**COMPLETE, f"{ENV}runtime": "onnxruntime 1.32.0"}
    runs = [make_run(metrics=numbers, tags={**COMPLETE}), make_run(method="onnx", metrics=numbers, tags=exported)]
    assert compare(runs).rows[1].ratios == {P50: 1.0}


@pytest.mark.parametrize(
    ("older", "who"), [(("original",), "the original"), (("fp16",), "this row"), (("original", "fp16"), "")]
)
def test_what_an_earlier_version_measured_is_compared_with_its_like(
    make_run: MakeRun, older: tuple[str, ...], who: str
) -> None:
    numbers = {P50: 10.0, "cpu/ram_peak_mib": 900.0, "size/weights_mib": 1.0}
    tags = {method: {} if method in older else {**COMPLETE} for method in ("original", "fp16")}
    comparison = compare(
        [make_run(method=method, metrics=numbers, tags=method_tags) for method, method_tags in tags.items()]
    )
    row = comparison.rows[1]
    if who:
        assert row.ratios == {"size/weights_mib": 1.0}
        assert notes(comparison, row) == [
            "CPU: not compared with the original, because an earlier version did not record all conditions: "
            f"measure {who} again"
        ]
    else:
        assert row.ratios == {P50: 1.0, "cpu/ram_peak_mib": 1.0, "size/weights_mib": 1.0}


@pytest.mark.parametrize("original_is_older", [True, False])
def test_what_two_runs_say_is_compared_though_one_is_of_an_earlier_version(
    make_run: MakeRun, original_is_older: bool
) -> None:
    old = {f"{ENV}torch": "2.13.0"}
    original = make_run(metrics={P50: 10.0}, tags=old if original_is_older else {**COMPLETE})
    newer_tags = {f"{ENV}torch": "2.14.1"} if original_is_older else old
    comparison = compare([original, make_run(method="fp16", metrics={P50: 5.0}, tags=newer_tags)])
    assert comparison.rows[1].ratios == {}
    own, base = ("2.14.1", "2.13.0") if original_is_older else ("2.13.0", "2.14.1")
    assert notes(comparison, comparison.rows[1]) == [
        "CPU: not compared with the original, which was measured under different conditions "
        f"(torch: {own}, the original's: {base})"
    ]


@pytest.mark.parametrize(
    ("family", "option", "is_other"),
    [
        ("causal_lm", "new_tokens", True),
        ("causal_lm", "protocol", False),  # changes the scoring, not the call
        ("plugin that is not here", "tokens", True),
    ],
)
def test_options_of_earlier_runs_stand_for_the_work_of_one_call(
    make_run: MakeRun, family: str, option: str, is_other: bool
) -> None:
    runs = [
        dataclasses.replace(run, params={**run.params, f"option.{option}": text})
        for run, text in (
            (make_run(metrics={P50: 10.0}, tags={"family": family}), "64"),
            (make_run(method="fp16", metrics={P50: 5.0}, tags={"family": family}), "32"),
        )
    ]
    comparison = compare(runs)
    if is_other:
        assert notes(comparison, comparison.rows[1]) == [
            "CPU: not compared with the original, which was measured under different conditions "
            f"(one call: {option}=32, the original's: {option}=64)"
        ]
    else:
        assert comparison.rows[1].ratios == {P50: 0.5}


def test_memory_of_the_gpu_is_compared_where_one_allocator_counts_it(make_run: MakeRun) -> None:
    numbers = {"gpu/vram_peak_mib": 100.0, "gpu/vram_process_mib": 500.0}

    def ratios(method: str, own: str = "", base: str = "") -> tuple[dict[str, float], list[str]]:
        runs = [
            make_run(method=name, metrics=numbers, tags={"compress.vram_source": source} if source else {}, gpu="ok")
            for name, source in (("original", base), (method, own))
        ]
        comparison = compare(runs)
        return dict(comparison.rows[1].ratios), notes(comparison, comparison.rows[1])

    memory = {"gpu/vram_peak_mib": 1.0, "gpu/vram_process_mib": 1.0}
    assert ratios("fp16") == (memory, [])
    for methods in (("tensorrt",), ("fp16+onnx_int8",), ("fp16", "driver", "allocator")):
        memory_ratios, reasons = ratios(*methods)
        assert memory_ratios == {"gpu/vram_process_mib": 1.0}
        assert reasons == ["VRAM: not compared with the original, because torch's allocator sees only its own memory"]
    assert ratios("tensorrt", "driver", "driver") == (memory, [])


def test_a_logged_ratio_that_contradicts_the_times_is_not_believed(make_run: MakeRun) -> None:
    turns = {"cpu/latency_ratio": 0.001, "cpu/latency_ratio_low": 0.0009, "cpu/latency_ratio_high": 0.0011}
    comparison = compare([make_run(metrics={P50: 10.0}), make_run(method="fp16", metrics={P50: 9.0, **turns})])
    row = comparison.rows[1]
    assert (row.ratios, row.ratio_intervals) == ({}, {})
    assert notes(comparison, row) == [
        "CPU: the ratio logged as measured in turns (0.0010x) contradicts the two times",
        "CPU inference time, median: an impossible ratio is not shown",
    ]


@pytest.mark.parametrize(("in_turns", "launches", "is_believed"), [(0.4, 5, False), (0.4, 1, True), (0.6, 5, True)])
def test_a_ratio_in_turns_may_differ_from_the_times_by_their_noise_and_the_load(
    make_run: MakeRun, in_turns: float, launches: int, is_believed: bool
) -> None:
    """Both took 10 ms, with 2 % between launches: a ratio of 2.5 is impossible; with one launch it may be possible."""
    metrics = {P50: 10.0, "cpu/launches": float(launches), "cpu/latency_launch_sd": 0.02}
    turns = {"latency_ratio": in_turns, "latency_ratio_low": 0.95 * in_turns, "latency_ratio_high": 1.05 * in_turns}
    logged = {f"cpu/{name}": value for name, value in turns.items()} | {"cpu/pairs": 5.0}
    row = compare([make_run(metrics=metrics), make_run(method="fp16", metrics=metrics | logged)]).rows[1]
    assert row.ratios.get(P50) == (in_turns if is_believed else None)
    assert row.ratio_degrees == ({P50: 4.0} if is_believed else {})
    assert (P50 in row.not_believed) != is_believed


def test_a_ratio_that_no_compression_reaches_is_not_believed(make_run: MakeRun) -> None:
    comparison = compare([make_run(metrics={P50: 10.0}), make_run(method="fp16", metrics={P50: 1e-6})])
    row = comparison.rows[1]
    assert (row.ratios, row.not_believed) == ({}, (P50,))
    assert notes(comparison, row) == ["CPU inference time, median: an impossible ratio is not shown"]


def test_an_original_is_one_by_what_it_is(make_run: MakeRun) -> None:
    yes, no = {"compress.original": "yes"}, {"compress.original": "no"}
    runs = [
        make_run(method="base", tags={**yes}, metrics={P50: 10.0}),
        make_run(method="original", tags={**no}, metrics={P50: 5.0}),
        make_run(method="original-ish", tags={**no}, metrics={P50: 4.0}),
    ]
    rows = {row.method: row for row in compare(runs).rows}
    assert [method for method, row in rows.items() if is_original(row)] == ["base"]
    assert {method: dict(row.ratios) for method, row in rows.items()} == {
        "base": {},
        "original": {P50: 0.5},
        "original-ish": {P50: 0.4},
    }


def test_a_copied_row_is_compared_with_the_original_of_its_table(make_run: MakeRun) -> None:
    def copied(method: str, table: str, milliseconds: float) -> Run:
        unknown = {f"{ENV}{name}": None for name in ("cpu_model", "threads", "gpu_model")}
        tags = {"compress.source": "imported", "compress.table": table, **unknown}
        return make_run(method=method, metrics={P50: milliseconds}, tags=tags)

    runs = [
        copied("original", "one", 10.0),
        copied("onnx", "one", 5.0),
        copied("onnx", "two", 6.0),
        copied("int8", "one", 4.0),
        make_run(metrics={P50: 8.0}),
        make_run(method="int8", metrics={P50: 2.0}),
    ]
    comparison = compare(runs)
    assert [(row.by_hand, row.method, dict(row.ratios)) for row in comparison.rows] == [
        (False, "original", {}),
        (False, "int8", {P50: 0.25}),
        (True, "original", {}),
        (True, "onnx", {P50: 0.5}),
        (True, "onnx", {}),
    ], "what was measured stands first, hides what was copied but what a copied row is divided by, and divides none"
    assert [row.table for row in comparison.rows] == ["", "", "one", "one", "two"]
    assert notes(comparison, comparison.rows[4]) == [
        "its table has no original of this model, so there is nothing to compare with"
    ]
    assert [row.by_hand for row in compare([*runs[:1], *runs[3:]]).rows] == [False, False], "it serves nobody"


def test_a_copied_row_goes_only_where_each_of_its_numbers_was_measured(make_run: MakeRun) -> None:
    by_hand = {"compress.source": "imported"}
    error = {P50: 10.0, "quality/output_error_rel_l2": 0.1}
    measured = make_run(method="int8", metrics=error, tags={"compress.weights": "random"})
    copied = make_run(method="int8", metrics={P50: 9.0, "quality/accuracy": 0.9}, tags=by_hand)
    assert [dict(row.values) for row in compare([measured, copied]).rows] == [
        error,
        {P50: 9.0, "quality/accuracy": 0.9},
    ]
    scored = make_run(method="int8", metrics={P50: 10.0, "quality/accuracy": 0.8, "quality/samples": 450.0})
    assert [row.by_hand for row in compare([scored, copied]).rows] == [False]


def test_each_team_that_lends_its_original_has_a_footnote_of_its_own(make_run: MakeRun) -> None:
    runs = [
        make_run(team="alpha"),
        make_run(team="beta", model="vit"),
        make_run(team="mine", method="fp16"),
        make_run(team="mine", model="vit", method="fp16"),
    ]
    comparison = compare(runs)
    lent = {row.model: notes(comparison, row)[0] for row in comparison.rows if row.team == "mine"}
    assert lent == {
        "yolo": "compared with the original of team alpha",
        "vit": "compared with the original of team beta",
    }


def test_a_ratio_measured_in_turns_comes_before_that_of_two_runs(make_run: MakeRun) -> None:
    in_turns = {"latency_ratio": 0.5, "latency_ratio_low": 0.4, "latency_ratio_high": 1.1, "pairs": 3.0}
    in_turns = {f"cpu/{name}": value for name, value in in_turns.items()}
    runs = [
        make_run(metrics={"cpu/latency_p50_ms": 10.0, "size/weights_mib": 4.0}),
        make_run(method="fp16", metrics={"cpu/latency_p50_ms": 9.0, "size/weights_mib": 2.0, **in_turns}),
        make_run(model="alone", method="fp16", metrics={"cpu/latency_p50_ms": 9.0, **in_turns}),
    ]
    rows = {(row.model, row.method): row for row in compare(runs).rows}
    row = rows["yolo", "fp16"]
    assert row.ratios["cpu/latency_p50_ms"] == 0.5
    assert row.ratios["size/weights_mib"] == 0.5
    assert row.ratio_intervals["cpu/latency_p50_ms"] == (0.4, 1.1)
    assert cells(row, COLUMNS, "en")[4] == "9.000 (≈0.50x)"
    assert rows["alone", "fp16"].ratios == {"cpu/latency_p50_ms": 0.5}
    assert rows["alone", "fp16"].notes == ()


@pytest.mark.parametrize(("language", "note"), [("en", ONE_LAUNCH), ("ru", "один запуск: шум неизвестен")])
def test_one_pair_of_processes_in_turns_claims_nothing(make_run: MakeRun, language: str, note: str) -> None:
    """The rounds are so similar that their own interval is narrow; two launches of one model may differ by more."""
    in_turns = {"latency_ratio": 0.5, "latency_ratio_low": 0.499, "latency_ratio_high": 0.501, "pairs": 1.0}
    numbers = {f"cpu/{name}": value for name, value in in_turns.items()} | {P50: 5.0, "cpu/launches": 1.0}
    comparison = compare([make_run(metrics={P50: 10.0}), make_run(method="fp16", metrics=numbers)], language=language)
    row = comparison.rows[1]
    assert (row.ratios[P50], row.ratio_intervals, row.ratio_degrees, row.told_apart) == (0.5, {}, {}, {})
    assert cells(row, COLUMNS, language)[4] == "5.000 (0.50x)"
    assert notes(comparison, row) == [note]


def test_real_scores_come_before_how_far_outputs_moved(make_run: MakeRun) -> None:
    scored = make_run(cpu="ok", metrics={"cpu/latency_p50_ms": 1.0, "quality/wer": 0.1, "quality/samples": 9.0})
    moved = make_run(gpu="ok", metrics={"gpu/latency_p50_ms": 1.0, "quality/output_error_rel_l2": 0.2})
    (row,) = compare([moved, scored]).rows
    assert row.values["quality/wer"] == 0.1
    assert "quality/output_error_rel_l2" not in row.values


SAMPLES = {"compress.data_digest": "abc", "compress.protocol.wer": "as jiwer", "compress.protocol.map50": "mean"}


def scored(value: float, low: float, high: float, **further: float) -> dict[str, float]:
    numbers = {"wer": value, "wer_low": low, "wer_high": high, "samples": 50.0, "map50": value, **further}
    return {"cpu/latency_p50_ms": 1.0, **{f"quality/{name}": number for name, number in numbers.items()}}


def differences(make_run: MakeRun, own: dict[str, float], **tags: str | None) -> tuple[dict[str, float], str]:
    original = make_run(tags={**SAMPLES}, metrics=scored(0.20, 0.16, 0.24))
    row = compare([original, make_run(method="fp16", tags={**SAMPLES, **tags}, metrics=own)]).rows[1]
    assert row.values["quality/wer"] == own["quality/wer"]
    assert row.values.get("quality/map50_difference") in (None, pytest.approx(own["quality/map50"] - 0.20))
    moved = {name: value for name, value in row.values.items() if name.startswith("quality/wer_difference")}
    return moved, cells(row, COLUMNS, "en")[-1]


def test_a_difference_is_that_of_the_pairs(make_run: MakeRun) -> None:
    paired = {"wer_difference": 0.01, "wer_difference_low": 0.005, "wer_difference_high": 0.015}
    numbers, cell = differences(make_run, scored(0.21, 0.17, 0.25, **paired))
    assert numbers == pytest.approx({f"quality/{name}": value for name, value in paired.items()})
    assert cell == "0.2100 WER (+0.010), 0.2100 mAP50 (+0.010) (n=50)"


def test_pairs_with_another_original_do_not_count(make_run: MakeRun) -> None:
    paired = {"wer_difference": -0.09, "wer_difference_low": -0.1, "wer_difference_high": -0.08}
    numbers, cell = differences(make_run, scored(0.21, 0.17, 0.25, **paired))
    assert numbers == pytest.approx(
        {
            "quality/wer_difference": 0.01,
            "quality/wer_difference_low": 0.01 - 0.04 * 2**0.5,
            "quality/wer_difference_high": 0.01 + 0.04 * 2**0.5,
        }
    )
    assert "WER (≈+0.010)" in cell


def test_without_pairs_both_intervals_tell(make_run: MakeRun) -> None:
    assert "WER (+0.30)" in differences(make_run, scored(0.5, 0.45, 0.55))[1]
    assert "WER (≈-0.010)" in differences(make_run, scored(0.19, 0.16, 0.22))[1]


@pytest.mark.parametrize(
    "tags",
    [
        {"compress.data_digest": "other"},
        {"compress.data_digest": None},
        {"compress.protocol.wer": "normalised"},
        {"compress.protocol.wer": None},
    ],
)
def test_other_samples_and_protocols_make_no_claim(make_run: MakeRun, tags: dict[str, str | None]) -> None:
    paired = {"wer_difference": 0.01, "wer_difference_low": 0.005, "wer_difference_high": 0.015}
    assert differences(make_run, scored(0.21, 0.17, 0.25, **paired), **tags)[0] == {}


def test_a_difference_without_an_interval_is_shown_and_not_claimed(make_run: MakeRun) -> None:
    own = scored(0.21, 0.17, 0.25, samples=49.0)
    assert differences(make_run, own)[0] == {}
    without = {name: value for name, value in scored(0.21, 0, 0).items() if "_low" not in name}
    for own in (without, scored(0.21, 0.17, 0.25, wer_difference=0.01)):
        numbers, cell = differences(make_run, own)
        assert numbers == {"quality/wer_difference": pytest.approx(0.01)}
        assert cell == "0.2100 WER (+0.010), 0.2100 mAP50 (+0.010) (n=50)"
    comparison = compare(
        [make_run(tags={**SAMPLES}, metrics=without), make_run("yolo", "x", tags={**SAMPLES}, metrics=own)]
    )
    assert notes(comparison, comparison.rows[1])[-1] == "WER; mAP50: the noise of the difference is unknown"


def test_another_processor_is_one_difference_by_its_short_name(make_run: MakeRun) -> None:
    amd = {"compress.env.cpu_model": "AMD Ryzen 7 7840U w/ Radeon 780M Graphics", "compress.env.threads": "8"}
    intel = {"compress.env.cpu_model": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "compress.env.cores": "16"}
    comparison = compare([make_run(tags={**intel}), make_run(method="fp16", tags={**amd})])
    (fp16,) = (row for row in comparison.rows if row.method == "fp16")
    assert notes(comparison, fp16) == [
        "CPU: not compared with the original, which was measured under different conditions "
        "(processor: Ryzen 7 7840U, the original's: Xeon Platinum 8481C)"
    ]


def test_a_row_says_what_it_is_compared_with_and_whether_quality_says_anything(make_run: MakeRun) -> None:
    copied = {"compress.source": "imported"}
    runs = [
        make_run(),
        make_run(method="fp16"),
        make_run(method="int8", team="beta", tags={"compress.weights": "random"}),
        make_run(model="vit", tags=copied | {"compress.weights": "random"}),
        make_run(model="vit", method="fp16"),
        make_run(model="vit", method="onnx", tags=copied),
        make_run(model="whisper", method="fp16"),
    ]
    rows = {(row.team, row.model, row.method): row for row in compare(runs).rows}
    assert rows["alpha", "yolo", "original"].original is None
    assert rows["alpha", "yolo", "fp16"].original == Reference("alpha", launches={"cpu": 1.0}, model="yolo")
    assert rows["beta", "yolo", "int8"].original == Reference("alpha", launches={"cpu": 1.0}, model="yolo")
    assert rows["alpha", "vit", "onnx"].original == Reference(
        "alpha", by_hand=True, random_weights=True, launches={"cpu": 1.0}, model="vit"
    )
    assert rows["alpha", "vit", "fp16"].original is None, "measured numbers are not divided by copied ones"
    assert rows["alpha", "whisper", "fp16"].original is None
    assert [key[2] for key, row in rows.items() if row.random_weights] == ["original", "int8"]


def test_the_precision_of_an_original_is_named_where_it_is_not_float32(make_run: MakeRun) -> None:
    half, full = {"compress.dtype": "bfloat16"}, {"compress.dtype": "float32"}
    metrics = {"size/weights_mib": 50.0}
    runs = [make_run(tags=half, metrics=metrics), make_run(method="gptq", tags=half, metrics=metrics)]
    assert [row.method for row in compare(runs).rows] == ["original [bfloat16]", "gptq"]
    assert [row.method for row in compare([make_run(tags=full)]).rows] == ["original"]
    assert [row.method for row in compare([make_run(tags={"compress.dtype": "<b>"})]).rows] == ["original"]
    setting = {**half, "compress.setting": "dtype=bfloat16"}
    assert [row.method for row in compare([make_run(tags=setting)]).rows] == ["original [dtype=bfloat16]"]


def test_a_ratio_to_an_original_in_another_precision_says_so(make_run: MakeRun) -> None:
    original = make_run(tags={"compress.dtype": "bfloat16"}, metrics={"size/weights_mib": 50.0})
    of_float32 = make_run(method="gptq", tags={"compress.dtype": "float32"}, metrics={"size/weights_mib": 20.0})
    comparison = compare([original, of_float32])
    (row,) = [row for row in comparison.rows if row.method == "gptq"]
    assert "made from weights in float32, but compared with an original in bfloat16" in notes(comparison, row)
    assert row.ratios == {"size/weights_mib": 0.4}
