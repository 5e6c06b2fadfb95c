from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Comparison, Reference, Row, Run
from mlflow_compress.renderers.csv import Csv
from mlflow_compress.renderers.html import Html
from mlflow_compress.renderers.md import Markdown
from mlflow_compress.reporting import gate, ranking
from mlflow_compress.reporting.baselines import idle, read
from mlflow_compress.reporting.chart_choices import Axis
from mlflow_compress.reporting.compare import compare
from mlflow_compress.reporting.quality_drop import Drop
from mlflow_compress.reporting.table_text import is_original, value_text

MakeRun = Callable[..., Run]
P50, WEIGHTS = "cpu/latency_p50_ms", "size/weights_mib"
LM = {"compress.family": "causal_lm"}
SCORED = {**LM, "compress.data_digest": "abc", "compress.protocol.accuracy": "greedy"}


def numbers(p50: float, weights: float, accuracy: float = 0.0) -> dict[str, float]:
    values = {P50: p50, WEIGHTS: weights, "cpu/launches": 5.0, "cpu/latency_launch_sd": 0.01}
    if accuracy:
        spread = {"quality/accuracy_low": accuracy - 0.005, "quality/accuracy_high": accuracy + 0.005}
        values |= {"quality/accuracy": accuracy, "quality/samples": 4000.0, **spread}
    return values


def compared(runs: Sequence[Run], *baselines: str, **settings: object) -> Comparison:
    return compare(runs, baselines=read(baselines, runs), **settings)  # type: ignore[arg-type]


def row_of(comparison: Comparison, model: str, method: str = "original", team: str = "alpha") -> Row:
    (row,) = [row for row in comparison.rows if (row.team, row.model, row.method) == (team, model, method)]
    return row


def notes(comparison: Comparison, row: Row) -> list[str]:
    return [comparison.footnotes[note] for note in row.notes]


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    """Return a float model and its variant, the same model published in 4 bits, and a detector."""
    return [
        make_run("smollm", metrics=numbers(10, 200, 0.8), tags={**SCORED, "compress.dtype": "bfloat16"}),
        make_run("smollm", "int8", metrics=numbers(5, 100, 0.79), tags=SCORED),
        make_run("smollm-gptq", metrics=numbers(4, 60, 0.78), tags={**SCORED, "compress.packed": "gptq 4 bit"}),
        make_run("yolo", metrics=numbers(30, 40), tags={"compress.family": "yolo"}),
        make_run("yolo", "fp16", metrics=numbers(15, 20), tags={"compress.family": "yolo"}),
    ]


GPTQ = "original [gptq 4 bit]"


def test_a_quantised_checkpoint_is_compared_with_the_original_of_the_named_model(runs: list[Run]) -> None:
    assert row_of(compare(runs), "smollm-gptq", GPTQ).ratios == {}
    comparison = compared(runs, "smollm")
    row = row_of(comparison, "smollm-gptq", GPTQ)
    assert (row.ratios[P50], row.ratios[WEIGHTS]) == (0.4, 0.3)
    assert row.ratio_intervals[P50][0] < 0.4 < row.ratio_intervals[P50][1]
    assert row.told_apart[P50]
    assert row.values["quality/accuracy_difference"] == pytest.approx(-0.02)
    assert row.told_apart["quality/accuracy_difference"]
    assert notes(comparison, row) == ["compared with the original of smollm (bfloat16), as requested"]
    assert row.original == Reference("alpha", launches={"cpu": 5.0}, model="smollm")
    assert row.baseline == "smollm"
    assert row.is_original is False


def test_all_other_rows_stay_as_they_are(runs: list[Run]) -> None:
    without_baseline, with_baseline = compare(runs), compared(runs, "smollm")
    rows = {(row.model, row.method): row for row in without_baseline.rows}
    changed = [
        row.model for row in with_baseline.rows if dataclasses.replace(row, notes=()) != rows[row.model, row.method]
    ]
    assert changed == ["smollm-gptq"]
    assert [(row.model, row.method) for row in with_baseline.rows] == list(rows)


def test_all_rows_of_a_model_or_of_the_family(runs: list[Run], make_run: MakeRun) -> None:
    runs += [make_run("qwen", metrics=numbers(20, 400), tags=LM)]
    runs += [make_run("qwen", "int8", metrics=numbers(10, 200), tags=LM)]
    assert row_of(compared(runs, "smollm"), "qwen", "int8").ratios[WEIGHTS] == 0.5  # it was not already quantised
    for baseline in ("qwen=smollm", "q*=smollm", "*=smollm"):
        comparison = compared(runs, baseline)
        assert row_of(comparison, "qwen").ratios[WEIGHTS] == 2
        assert row_of(comparison, "qwen", "int8").ratios[WEIGHTS] == 1
        assert row_of(comparison, "yolo", "fp16").ratios[WEIGHTS] == 0.5  # another family
        assert row_of(comparison, "yolo").ratios == {}
        assert row_of(comparison, "smollm", "int8").ratios[WEIGHTS] == 0.5
        assert bool(row_of(comparison, "smollm-gptq", GPTQ).ratios) == (baseline == "*=smollm")
    assert row_of(compared(runs, "yolo=smollm"), "yolo", "fp16").ratios[WEIGHTS] == 0.1  # named explicitly


def test_the_first_baseline_that_fits_a_row_counts(runs: list[Run], make_run: MakeRun) -> None:
    runs += [make_run("qwen", metrics=numbers(20, 600), tags=LM)]
    assert row_of(compared(runs, "smollm-gptq=qwen", "smollm"), "smollm-gptq", GPTQ).ratios[WEIGHTS] == 0.1
    assert row_of(compared(runs, "smollm", "smollm-gptq=qwen"), "smollm-gptq", GPTQ).ratios[WEIGHTS] == 0.3


def test_the_own_team_s_original_comes_first(runs: list[Run], make_run: MakeRun) -> None:
    of_beta = make_run("smollm", team="beta", metrics=numbers(10, 600), tags=LM)
    assert row_of(compared([*runs, of_beta], "smollm"), "smollm-gptq", GPTQ).ratios[WEIGHTS] == 0.3
    comparison = compared([*runs[2:], of_beta], "smollm")
    row = row_of(comparison, "smollm-gptq", GPTQ)
    assert row.ratios[WEIGHTS] == 0.1
    assert notes(comparison, row) == [
        "compared with the original of smollm, as requested",
        "compared with the original of team beta",
    ]


def test_the_original_at_the_same_setting_comes_first_and_another_batch_size_is_none(
    runs: list[Run], make_run: MakeRun
) -> None:
    def packed(**tags: str) -> Run:
        all_tags = {**LM, "compress.packed": "gptq 4 bit", **{f"compress.{name}": text for name, text in tags.items()}}
        return make_run("smollm-gptq", metrics=numbers(4, 60), tags=all_tags)

    runs += [packed(setting="dtype=native"), packed(batch_size="8")]
    comparison = compared(runs, "smollm")
    assert row_of(comparison, "smollm-gptq", "original [gptq 4 bit, dtype=native]").ratios[WEIGHTS] == 0.3
    unmatched = row_of(comparison, "smollm-gptq", "original [batch 8, gptq 4 bit]")
    assert (unmatched.ratios, unmatched.original, unmatched.is_original) == ({}, None, False)
    assert notes(comparison, unmatched) == ["nothing to compare with: smollm was not measured at this batch size"]
    native = make_run("smollm", metrics=numbers(10, 600), tags={**LM, "compress.setting": "dtype=native"})
    comparison = compared([*runs, native], "smollm")
    assert row_of(comparison, "smollm-gptq", "original [gptq 4 bit, dtype=native]").ratios[WEIGHTS] == 0.1


def test_a_run_is_what_its_own_model_s_rows_are_compared_with_too(runs: list[Run]) -> None:
    comparison = compared(runs, runs[1].run_id)
    base, original = row_of(comparison, "smollm", "int8"), row_of(comparison, "smollm", "original [bfloat16]")
    assert (base.ratios, base.original, base.baseline) == ({}, None, "")
    assert is_original(base)
    assert original.ratios[WEIGHTS] == 2
    assert original.ratios[P50] == 2
    assert not is_original(original)
    row = row_of(comparison, "smollm-gptq", GPTQ)
    assert row.ratios[WEIGHTS] == 0.6
    assert row.values["quality/accuracy_difference"] == pytest.approx(-0.01)
    assert row.original is not None
    assert row.original.run_id == runs[1].run_id
    assert notes(comparison, row) == [
        f"compared with run {runs[1].run_id} (alpha, smollm, int8 [1970-01-01 00:00 UTC]), as requested"
    ]
    assert row_of(comparison, "yolo", "fp16").ratios[WEIGHTS] == 0.5
    assert Axis(WEIGHTS, relative=True).value(base) == 1.0
    assert Axis(WEIGHTS, relative=True).value(original) == 2.0


def test_a_run_may_be_named_by_the_first_8_characters_and_be_an_older_one(make_run: MakeRun) -> None:
    ids = ["0123456789abcdef", "0123456799999999", "fedcba9876543210"]
    older, newer, failed = (
        dataclasses.replace(run, run_id=run_id)
        for run, run_id in zip(
            [
                make_run(method="int8", metrics=numbers(5, 50)),
                make_run(method="int8", metrics=numbers(6, 25)),
                make_run(method="int4", cpu="failed", metrics={}, tags={"compress.reason": "out of memory"}),
            ],
            ids,
            strict=True,
        )
    )
    all_runs = [older, newer, failed]
    (row,) = compared(all_runs, "0123456789").rows
    assert row.ratios[WEIGHTS] == 0.5
    with pytest.raises(StoreError, match=r"matches several runs: .*Give more characters of the id"):
        read(["01234567"], all_runs)
    with pytest.raises(StoreError, match="Unknown baseline"):
        read(["0123456"], all_runs)  # too short, even if it matches
    with pytest.raises(StoreError, match=r"has no numbers to compare with \(out of memory\)"):
        read(["fedcba98"], all_runs)


def test_errors_list_valid_baselines(runs: list[Run], make_run: MakeRun) -> None:
    with pytest.raises(StoreError, match=r"Unknown model 'smolm'. Did you mean 'smollm'\?.*smollm-gptq, yolo.*a run"):
        read(["smolm"], runs)
    with pytest.raises(StoreError, match=r"that has no rows here.*Did you mean 'yolo'\?"):
        read(["yola=smollm"], runs)
    runs += [make_run("qwen", "int8", tags=LM)]
    with pytest.raises(
        StoreError, match=r"original of 'qwen' was not measured here.*here: smollm, smollm-gptq, yolo\."
    ):
        read(["qwen"], runs)
    with_equals_sign = make_run("a=b", metrics=numbers(1, 1))
    assert read(["a=b"], [*runs, with_equals_sign])[0].name == "a=b"
    assert [
        (baseline.rows_of, baseline.name) for baseline in read(["yolo=a=b", "a=b=yolo"], [*runs, with_equals_sign])
    ] == [
        ("yolo", "a=b"),
        ("a=b", "yolo"),
    ]


def test_what_was_logged_against_the_own_original_counts_for_nothing(runs: list[Run]) -> None:
    in_turns = {
        "cpu/latency_ratio": 0.9,
        "cpu/latency_ratio_low": 0.8,
        "cpu/latency_ratio_high": 0.95,
        "cpu/pairs": 4.0,
    }
    paired = {f"quality/accuracy_difference{end}": value for end, value in (("", 0.01), ("_low", 0), ("_high", 0.02))}
    changed = dataclasses.replace(runs[1], metrics={**runs[1].metrics, **in_turns, **paired, "quality/accuracy": 0.79})
    all_runs = [runs[0], changed, *runs[2:]]
    assert row_of(compare(all_runs), "smollm", "int8").ratios[P50] == 0.9
    assert row_of(compared(all_runs, runs[2].run_id), "smollm", "int8").ratios[P50] == 0.9  # another model
    row = row_of(compared(all_runs, f"smollm={runs[2].run_id}"), "smollm", "int8")
    assert row.ratios[P50] == 1.25
    assert not in_turns.keys() & row.values.keys()
    # The difference that was logged is paired with another model. So the interval of 0.79 - 0.78 is from both scores.
    assert row.values["quality/accuracy_difference"] == pytest.approx(0.01)
    assert row.values["quality/accuracy_difference_low"] != 0


def test_other_hardware_and_data_have_the_same_footnotes_as_for_an_original(runs: list[Run], make_run: MakeRun) -> None:
    tags = {**SCORED, "compress.packed": "awq 4 bit", "compress.env.cpu_model": "EPYC", "compress.data_digest": "xyz"}
    runs += [make_run("smollm-awq", metrics=numbers(4, 60, 0.78), tags=tags)]
    comparison = compared(runs, "smollm")
    row = row_of(comparison, "smollm-awq", "original [awq 4 bit]")
    assert P50 not in row.ratios
    assert row.ratios[WEIGHTS] == 0.3
    assert "quality/accuracy_difference" not in row.values
    assert any("measured under different conditions (processor: EPYC" in note for note in notes(comparison, row))


def test_rows_by_hand_are_compared_within_their_table(runs: list[Run], make_run: MakeRun) -> None:
    def by_hand(model: str, weights: float) -> Run:
        tags = {"compress.source": "imported", "compress.table": "README.md:1"}
        return make_run(model, tags=tags, metrics={WEIGHTS: weights, P50: 1.0})

    runs += [by_hand("smollm", 1000.0), by_hand("theirs", 100.0)]
    assert row_of(compared(runs, "theirs=smollm"), "theirs").ratios[WEIGHTS] == 0.1
    assert row_of(compared(runs, "smollm"), "smollm-gptq", GPTQ).ratios[WEIGHTS] == 0.3
    only_copied = [*runs[2:3], by_hand("smollm", 1000.0)]
    assert row_of(compared(only_copied, "smollm"), "smollm-gptq", GPTQ).ratios == {}


def test_a_baseline_without_effect_is_reported(runs: list[Run]) -> None:
    baselines = read(
        ["smollm", "yolo", "vit*=yolo"], [*runs, dataclasses.replace(runs[0], tags={**runs[0].tags, "model": "vit1"})]
    )
    lines = list(idle(baselines, compare(runs, baselines=baselines).rows))
    assert len(lines) == 2
    assert "--baseline yolo has no effect: it applies to models whose checkpoint was already quantised" in lines[0]
    assert "no row of vit* can be compared with it" in lines[1]


def test_the_order_of_runs_says_nothing(runs: list[Run]) -> None:
    shuffled = random.Random(0).sample(runs, len(runs))
    assert compared(shuffled, "smollm") == compared(runs, "smollm")


def test_every_run(runs: list[Run], make_run: MakeRun) -> None:
    repeated = make_run("smollm", metrics=numbers(10, 400), tags=LM)
    comparison = compared([*runs, repeated], "smollm", every_run=True)
    (row,) = [row for row in comparison.rows if row.model == "smollm-gptq"]
    assert row.ratios[WEIGHTS] == 0.15  # to the newest
    comparison = compared([*runs, repeated], runs[0].run_id, every_run=True)
    base, newer = [row for row in comparison.rows if row.model == "smollm" and row.method.startswith("original")]
    assert (base.ratios, newer.ratios[WEIGHTS]) == ({}, 2)


def test_the_gate_judges_a_quantised_checkpoint_against_it(runs: list[Run], make_run: MakeRun) -> None:
    demands = gate.Demands(min_speedup=2, max_quality_drop=Drop.read("5%"), max_size_ratio=0.25)
    checked = gate.check(compared(runs, "smollm"), demands)
    by_option = {result.option: result for result in checked if result.model == "smollm-gptq"}
    assert [by_option[option].verdict for option in ("--min-speedup", "--max-quality-drop", "--max-size-ratio")] == [
        "passes",
        "passes",
        "fails",
    ]
    assert all("the baseline is the original of smollm" in result.reason for result in by_option.values())
    assert not [result for result in gate.check(compare(runs), demands) if result.model == "smollm-gptq"]
    of_beta = make_run("smollm", team="beta", metrics=numbers(10, 600), tags=LM)
    only_theirs = [*runs[2:], of_beta]
    size = gate.Demands(max_size_ratio=0.25)
    (by_name,) = [
        result for result in gate.check(compared(only_theirs, "smollm"), size) if result.model == "smollm-gptq"
    ]
    (by_run,) = [
        result for result in gate.check(compared(only_theirs, of_beta.run_id), size) if result.model == "smollm-gptq"
    ]
    assert (by_name.verdict, by_name.reason) == (
        "undecided",
        "compared with the original of team beta; the baseline is the original of smollm",
    )
    assert (by_run.verdict, by_run.reason) == ("passes", f"the baseline is run {of_beta.run_id}")


def test_the_gate_says_where_the_baseline_is_missing(runs: list[Run], make_run: MakeRun) -> None:
    tags = {**LM, "compress.packed": "awq 4 bit", "compress.batch_size": "8"}
    runs += [make_run("smollm-awq", metrics=numbers(4, 60), tags=tags)]
    checked = gate.check(compared(runs, "smollm"), gate.Demands(max_size_ratio=0.25))
    (result_of_awq,) = [result for result in checked if result.model == "smollm-awq"]
    assert result_of_awq.verdict == "undecided"
    assert result_of_awq.reason == "its baseline smollm was not measured at its batch size"


def test_summaries_are_of_methods_against_their_own_originals(runs: list[Run]) -> None:
    def methods(comparison: Comparison) -> list[str]:
        return [summary.method for summary in ranking.summed_up(comparison).summaries]

    assert methods(compared(runs, "smollm")) == methods(compare(runs)) == ["fp16", "int8"]
    assert methods(compared(runs, runs[1].run_id)) == ["fp16"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_form_of_the_table_shows_it(runs: list[Run], language: str) -> None:
    comparison = ranking.directed(compared(runs, "smollm", language=language))
    note = {
        "en": "compared with the original of smollm (bfloat16), as requested",
        "ru": "по запросу сравнивается с оригиналом smollm (bfloat16)",
    }[language]
    assert value_text(row_of(comparison, "smollm-gptq", GPTQ), WEIGHTS, language) == "60.00 MB (0.30x)"
    for renderer in (Markdown(), Csv(), Html()):
        text = renderer.render(comparison).decode()
        assert note in text
    for renderer in (Markdown(), Html()):
        assert "(0.30x)" in renderer.render(comparison).decode()
