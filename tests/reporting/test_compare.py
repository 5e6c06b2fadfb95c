from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mlflow_compress.records import Caution, CautionKind, Comparison, Reference, Row, Run
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.table_text import COLUMNS, cells

MakeRun = Callable[..., Run]


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
    assert fp16.notes == ()


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


def test_the_newest_good_run_counts_and_the_newer_failure_is_told(make_run: MakeRun) -> None:
    old, good = make_run(metrics={"cpu/latency_p50_ms": 1.0}), make_run(metrics={"cpu/latency_p50_ms": 2.0})
    bad = make_run(cpu="failed", tags={"compress.reason.cpu": "out of memory"})
    comparison = compare([good, bad, old])
    assert comparison.rows[0].runs == {"cpu": good.run_id}
    (failure,) = comparison.failures
    assert (failure.device, failure.status, failure.reason, failure.run_id) == (
        "cpu",
        "failed",
        "out of memory",
        bad.run_id,
    )


def test_a_failure_made_good_is_forgotten(make_run: MakeRun) -> None:
    runs = [make_run(cpu="failed"), make_run(tags={"status": "failed"}, cpu="failed"), make_run()]
    assert compare(runs).failures == ()


def test_only_the_failed_device_is_listed(make_run: MakeRun) -> None:
    run = make_run(
        method="int8", cpu="ok", gpu="skipped", tags={"compress.reason.gpu": "CPU only", "compress.reason": "gpu: ..."}
    )
    comparison = compare([run])
    assert len(comparison.rows) == 1
    assert [(each.device, each.status, each.reason) for each in comparison.failures] == [("gpu", "skipped", "CPU only")]


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_run_that_came_to_no_device(make_run: MakeRun, status: str) -> None:
    run = make_run(tags={"compress.outcome.cpu": None, "status": status, "compress.reason": "does not apply"}, cpu="x")
    (failure,) = compare([run]).failures
    assert (failure.status, failure.device, failure.reason) == (status, "", "does not apply")


def test_a_run_that_never_ended(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.outcome.cpu": None, "status": None}, lifecycle="RUNNING")
    comparison = compare([run])
    assert comparison.rows == ()
    assert comparison.failures[0].status == "failed"
    assert comparison.failures[0].reason.startswith("the run never ended")


def test_a_run_that_never_ended_is_forgotten_once_another_did(make_run: MakeRun) -> None:
    runs = [make_run(tags={"compress.outcome.cpu": None, "status": None}, lifecycle="RUNNING"), make_run()]
    assert compare(runs).failures == ()


def test_a_killed_run_without_a_result(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.outcome.cpu": None, "status": None}, lifecycle="KILLED")
    assert compare([run]).failures[0].reason == "the run ended without a result"


def test_a_good_run_without_outcomes_is_told_by_its_numbers(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.outcome.cpu": None})
    assert compare([run]).rows[0].runs == {"cpu": run.run_id}
    empty = make_run(tags={"compress.outcome.cpu": None}, metrics={})
    assert compare([empty]).failures[0].reason == "the run holds no numbers"


def test_scoring_that_failed_keeps_the_timing(make_run: MakeRun) -> None:
    run = make_run(cpu="ok", quality="failed", tags={"compress.reason.quality": "no such data"})
    comparison = compare([run])
    assert comparison.rows[0].runs == {"cpu": run.run_id}
    assert [(each.device, each.reason) for each in comparison.failures] == [("quality", "no such data")]
    assert compare([run, make_run(cpu="ok", quality="ok")]).failures == ()


def test_a_variant_that_failed_although_its_devices_are_good(make_run: MakeRun) -> None:
    run = make_run(tags={"status": "failed", "compress.reason": "the disk is full"})
    comparison = compare([run])
    assert len(comparison.rows) == 1
    assert comparison.failures[0].reason == "the disk is full"


def test_order_is_natural_and_the_original_first(make_run: MakeRun) -> None:
    asked = [
        ("alpha", "model2", "original"),
        ("alpha", "model2", "cluster"),
        ("alpha", "model2", "int4"),
        ("alpha", "model2", "int10"),
        ("alpha", "model10", "original"),
        ("Beta", "model1", "fp16"),
        ("team 2", "m", "original"),
        ("team 10", "m", "original"),
    ]
    runs = [make_run(model, method, team) for team, model, method in reversed(asked)]
    assert names(compare(runs)) == asked
    for seed in range(5):
        shuffled = random.Random(seed).sample(runs, len(runs))
        assert compare(shuffled) == compare(runs)


def test_runs_of_the_same_moment_are_told_apart_by_id(make_run: MakeRun) -> None:
    one, other = make_run(), make_run()
    same = Run(other.run_id, "hw1", "", "FINISHED", one.started_ms, other.tags, {}, other.metrics)
    assert compare([one, same]) == compare([same, one])


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
    assert notes(comparison, row) == ["compared with the original of team new"]


@pytest.mark.parametrize(
    ("device", "tag", "other", "told"),
    [
        ("cpu", "cpu_model", "EPYC", "processor: EPYC, the original's: Xeon"),
        ("cpu", "threads", "8", "threads: 8, the original's: 2"),
        ("gpu", "gpu_model", "H200", "GPU: H200, the original's: T4"),
        ("gpu", "gpu_model", None, "GPU: unknown, the original's: T4"),
    ],
)
def test_different_hardware_is_never_compared(
    make_run: MakeRun, device: str, tag: str, other: str | None, told: str
) -> None:
    numbers = {"cpu/latency_p50_ms": 10.0, "gpu/latency_p50_ms": 1.0, "size/weights_mib": 1.0}
    runs = [
        make_run(cpu="ok", gpu="ok", metrics=numbers),
        make_run(method="fp16", cpu="ok", gpu="ok", metrics=numbers, tags={f"compress.env.{tag}": other}),
    ]
    comparison = compare(runs)
    (row,) = (row for row in comparison.rows if row.method == "fp16")
    assert f"{device}/latency_p50_ms" not in row.ratios
    assert len(row.ratios) == 2
    (note,) = notes(comparison, row)
    assert note.startswith(f"{device.upper()}: not compared")
    assert told in note


def test_random_weights_are_told(make_run: MakeRun) -> None:
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
    tags = {f"compress.caution.{at}": caution.to_text() for at, caution in enumerate(own, 1)}
    tags |= {
        "compress.caution.5": "no JSON",
        "compress.caution.6": '{"code":"stale","short":{"en":"of an earlier log"}}',
    }
    run = make_run(tags={**tags, "compress.cautions": "new,silent,of_a_plugin,of_a_plugin,unheard_of"})
    comparison = compare([run], language=language)
    prefix, first = {"en": ("caution", "it is new"), "ru": ("осторожно", "оно новое")}[language]
    told = [first, "the plugin of 0.1 says this", "and this", "unheard_of"]
    assert notes(comparison, comparison.rows[0]) == [f"{prefix}: {each}" for each in told]


def test_cautions_are_told_in_words(make_run: MakeRun) -> None:
    run = make_run(tags={"compress.cautions": "busy_machine, made_up_code,random_weights"})
    comparison = compare([run])
    assert notes(comparison, comparison.rows[0]) == [
        "caution: made_up_code",
        "caution: the machine was busy",
    ]


def test_rows_share_a_footnote(make_run: MakeRun) -> None:
    busy = {"compress.cautions": "busy_machine"}
    comparison = compare([make_run(tags=busy), make_run(method="fp16", tags=busy)])
    assert [row.notes for row in comparison.rows] == [(0,), (0,)]
    assert len(comparison.footnotes) == 1


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
    both = make_run(cpu="ok", gpu="ok", metrics=metrics)
    comparison = compare([both, make_run("vit", cpu="ok"), make_run("bert", gpu="failed")], devices=["gpu"])
    assert names(comparison) == [("alpha", "yolo", "original")]
    assert comparison.rows[0].values == {"size/params": 7.0, "gpu/latency_p50_ms": 2.0}
    assert [failure.model for failure in comparison.failures] == ["bert"]


def test_every_run_has_a_row_if_asked_for(make_run: MakeRun) -> None:
    runs = [make_run(metrics={"cpu/latency_p50_ms": float(at)}) for at in (4, 2)]
    older, newer = compare(runs, every_run=True).rows
    assert newer.ratios == {}
    assert older.ratios == {"cpu/latency_p50_ms": 2.0}
    assert older.method == newer.method == "original [1970-01-01 00:00 UTC]"


def test_rows_of_the_same_hardware_stand_together(make_run: MakeRun) -> None:
    epyc = {"compress.env.cpu_model": "EPYC"}
    runs = [
        make_run(cpu="ok", gpu="ok"),
        make_run(method="int8", cpu="ok"),  # on the CPU alone: still beside its original
        make_run(team="beta", tags=epyc),
        make_run(team="beta", method="int8", tags=epyc),
        make_run(team="beta", method="bf16", cpu="ok", gpu="ok"),
    ]
    comparison = compare(runs)
    assert comparison.columns[-1] == "hardware"
    assert [(row.team, row.method, row.hardware) for row in comparison.rows] == [
        ("beta", "original", "EPYC, 2 threads"),
        ("beta", "int8", "EPYC, 2 threads"),
        ("alpha", "original", "Xeon, 2 threads; T4"),
        ("alpha", "int8", "Xeon, 2 threads"),
        ("beta", "bf16", "Xeon, 2 threads; T4"),
    ]
    assert compare(runs[:2]).columns == (), "a GPU run beside a CPU run tells no two machines apart"


def test_what_does_not_know_its_hardware_makes_no_column(make_run: MakeRun) -> None:
    unknown = {"compress.source": "imported", "compress.env.cpu_model": None, "compress.env.threads": None}
    assert compare([make_run(cpu="ok"), make_run(team="beta", tags=unknown)]).columns == ()


def test_what_was_copied_by_hand_says_so_and_is_compared_within_its_team(make_run: MakeRun) -> None:
    unknown = {f"compress.env.{name}": None for name in ("cpu_model", "threads", "gpu_model")}
    tags = {"compress.source": "imported", **unknown}
    mine = compare([make_run(tags=tags), make_run(method="ONNX", tags=tags)])
    assert [row.by_hand for row in mine.rows] == [True, True]
    assert mine.rows[1].ratios["cpu/latency_p50_ms"] == 1.0
    measured, written = make_run(metrics={"size/params": 1.0}), make_run(tags=tags, metrics={"size/params": 2.0})
    assert compare([measured, written]).rows[0].values == {"size/params": 1.0}
    theirs = compare([make_run(tags=tags), make_run(team="beta", method="ONNX", tags=tags)]).rows[1]
    assert "cpu/latency_p50_ms" not in theirs.ratios


def test_title_names_the_experiments(make_run: MakeRun) -> None:
    assert compare([make_run()]).title == "hw1"
    assert compare([make_run()], title="mine").title == "mine"


def test_names_come_from_params_where_tags_are_missing(make_run: MakeRun) -> None:
    run = make_run(tags={"model": None})
    given = Run(run.run_id, "hw1", "", "FINISHED", 1, run.tags, {"model": "vit"}, run.metrics)
    assert names(compare([given])) == [("alpha", "vit", "original")]


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


@pytest.mark.parametrize(("error", "told_apart"), [(0.1, True), (1.0, False)])
def test_a_difference_within_the_noise_is_shown_as_such(make_run: MakeRun, error: float, told_apart: bool) -> None:
    runs = [
        make_run(metrics={"cpu/latency_p50_ms": 10.0, "cpu/latency_p50_stderr_ms": error}),
        make_run(method="fp16", metrics={"cpu/latency_p50_ms": 9.0, "cpu/latency_p50_stderr_ms": error}),
    ]
    _, row = compare(runs).rows
    low, high = row.ratio_intervals["cpu/latency_p50_ms"]
    assert low < 0.9 < high
    assert (high < 1) is told_apart
    assert cells(row, COLUMNS, "en")[4] == ("9.000 (0.90x)" if told_apart else "9.000 (≈0.90x)")


def test_a_ratio_measured_in_turns_comes_before_that_of_two_runs(make_run: MakeRun) -> None:
    in_turns = {"cpu/latency_ratio": 0.5, "cpu/latency_ratio_low": 0.4, "cpu/latency_ratio_high": 1.1}
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


def test_real_scores_come_before_how_far_outputs_moved(make_run: MakeRun) -> None:
    scored = make_run(cpu="ok", metrics={"cpu/latency_p50_ms": 1.0, "quality/wer": 0.1, "quality/samples": 9.0})
    moved = make_run(gpu="ok", metrics={"gpu/latency_p50_ms": 1.0, "quality/output_error_rel_l2": 0.2})
    (row,) = compare([moved, scored]).rows
    assert row.values["quality/wer"] == 0.1
    assert "quality/output_error_rel_l2" not in row.values


SAMPLES = {"compress.data_digest": "abc", "compress.protocol.wer": "as jiwer", "compress.protocol.map50": "mean"}


def scored(value: float, low: float, high: float, **more: float) -> dict[str, float]:
    numbers = {"wer": value, "wer_low": low, "wer_high": high, "samples": 50.0, "map50": value, **more}
    return {"cpu/latency_p50_ms": 1.0, **{f"quality/{name}": number for name, number in numbers.items()}}


def differences(make_run: MakeRun, own: dict[str, float], **tags: str | None) -> tuple[dict[str, float], str]:
    original = make_run(tags={**SAMPLES}, metrics=scored(0.20, 0.16, 0.24))
    row = compare([original, make_run(method="fp16", tags={**SAMPLES, **tags}, metrics=own)]).rows[1]
    assert row.values["quality/wer"] == own["quality/wer"]
    assert row.values.get("quality/map50_difference") in (None, pytest.approx(own["quality/map50"] - 0.20))
    found = {name: value for name, value in row.values.items() if name.startswith("quality/wer_difference")}
    return found, cells(row, COLUMNS, "en")[-1]


def test_a_difference_is_that_of_the_pairs(make_run: MakeRun) -> None:
    paired = {"wer_difference": 0.01, "wer_difference_low": 0.005, "wer_difference_high": 0.015}
    found, cell = differences(make_run, scored(0.21, 0.17, 0.25, **paired))
    assert found == pytest.approx({f"quality/{name}": value for name, value in paired.items()})
    assert cell == "0.2100 mAP50, 0.2100 WER (+0.010) (n=50)"


def test_pairs_with_another_original_do_not_count(make_run: MakeRun) -> None:
    paired = {"wer_difference": -0.09, "wer_difference_low": -0.1, "wer_difference_high": -0.08}
    found, cell = differences(make_run, scored(0.21, 0.17, 0.25, **paired))
    assert found == pytest.approx(
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


def test_a_difference_without_an_interval_is_known_but_not_claimed(make_run: MakeRun) -> None:
    own = scored(0.21, 0.17, 0.25, samples=49.0)
    assert differences(make_run, own)[0] == {}
    without = {name: value for name, value in scored(0.21, 0, 0).items() if "_low" not in name}
    for own in (without, scored(0.21, 0.17, 0.25, wer_difference=0.01)):
        found, cell = differences(make_run, own)
        assert found == {"quality/wer_difference": pytest.approx(0.01)}
        assert cell == "0.2100 mAP50, 0.2100 WER (n=50)"


def test_a_row_says_what_it_is_compared_with_and_whether_quality_says_anything(make_run: MakeRun) -> None:
    copied = {"compress.source": "imported"}
    runs = [
        make_run(),
        make_run(method="fp16"),
        make_run(method="int8", team="beta", tags={"compress.weights": "random"}),
        make_run(model="vit", tags=copied | {"compress.weights": "random"}),
        make_run(model="vit", method="fp16"),
        make_run(model="whisper", method="fp16"),
    ]
    rows = {(row.team, row.model, row.method): row for row in compare(runs).rows}
    assert rows["alpha", "yolo", "original"].original is None
    assert rows["alpha", "yolo", "fp16"].original == Reference("alpha")
    assert rows["beta", "yolo", "int8"].original == Reference("alpha")
    assert rows["alpha", "vit", "fp16"].original == Reference("alpha", by_hand=True, random_weights=True)
    assert rows["alpha", "whisper", "fp16"].original is None
    assert [key[2] for key, row in rows.items() if row.random_weights] == ["original", "int8"]
