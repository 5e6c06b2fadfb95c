from __future__ import annotations

import re
from pathlib import Path

import pytest

import mlflow_compress
from mlflow_compress.reporting.footnotes import CAUTION, Note, numbered

BUSY = Note(CAUTION, "the machine was busy", code="busy_machine")
RANDOM_CALIBRATION = Note(CAUTION, "calibrated on random inputs", code="random_calibration")


CODES = {
    code
    for path in Path(mlflow_compress.__file__).parent.rglob("*.py")
    for code in re.findall(r'\bCautionKind\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
}
NOT_IN_TABLES = {"energy_estimated", "few_for_tail", "random_weights"}
ABOUT_RESULTS = {
    "blind_outputs",
    "cast_weights",
    "code_not_run",
    "cut_off_sums",
    "cut_texts",
    "dense_zeros",
    "detected_language",
    "emulated_precision",
    "example_calibration",
    "few_calibration_tokens",
    "fewer_weights",
    "fused_padding",
    "gguf_sees_all",
    "grew",
    "impossible_number",
    "impossible_time",
    "interval_unknown",
    "load_errors",
    "measured_from_outside",
    "metric_undefined",
    "new_connections",
    "no_cache",
    "no_kernel",
    "no_logits",
    "no_outputs",
    "not_all_held",
    "not_compiled",
    "not_trained",
    "one_scale_for_all",
    "other_groups",
    "other_inputs",
    "other_output_shapes",
    "partly_random_weights",
    "random_calibration",
    "random_outputs",
    "scoring_cut",
    "set_elsewhere",
    "silent_sounds",
    "skipped_samples",
    "small_coverage",
    "smaller_vocabulary",
    "static_activations",
    "stored_only",
    "task_not_scored",
    "tied_held_twice",
    "tiny_quality_sample",
    "uncalibrated_layers",
    "unchecked_past",
    "unsteady_outputs",
    "word_tags",
    "written_otherwise",
}


def elsewhere(*models: str) -> Note:
    return Note("hardware", "CPU", tuple(f"processor: {model}" for model in models))


def test_what_ruins_a_result_comes_before_what_makes_it_noisy() -> None:
    footnotes, indices = numbered([[BUSY], [BUSY, elsewhere("EPYC"), RANDOM_CALIBRATION], [Note("random")]], "en")
    assert [footnote.partition(":")[0] for footnote in footnotes] == ["random weights", "caution", "CPU", "caution"]
    assert footnotes[1] == "caution: calibrated on random inputs"
    assert footnotes[3] == "caution: the machine was busy"
    assert indices == [(3,), (1, 2, 3), (0,)]


@pytest.mark.parametrize("code", sorted(CODES - NOT_IN_TABLES))
def test_every_caution_comes_before_comparisons_or_is_about_timing_and_comes_after(code: str) -> None:
    footnotes, _ = numbered([[Note("no_original"), Note(CAUTION, "this", code=code)]], "en")
    assert footnotes.index("caution: this") == (0 if code in ABOUT_RESULTS else 1), (
        f"say in footnotes.py what {code} is"
    )


def test_the_kinds_of_cautions_are_known() -> None:
    assert CODES > ABOUT_RESULTS | NOT_IN_TABLES
    assert {"lost_launches", "not_in_turns", "cpu_limit"} <= CODES - ABOUT_RESULTS


def test_rows_of_one_kind_share_a_footnote_that_lists_what_differs() -> None:
    rows = [[elsewhere("EPYC")], [elsewhere("Ryzen", "EPYC")], [Note("hardware", "GPU", ("GPU: T4",))]]
    footnotes, indices = numbered(rows, "en")
    assert footnotes[0].endswith("(processor: EPYC; processor: Ryzen)")
    assert footnotes[1].startswith("GPU: not compared")
    assert indices == [(0,), (0,), (1,)]


@pytest.mark.parametrize(("language", "end"), [("en", "and 2 more)"), ("ru", "и ещё 2)")])
def test_a_long_list_of_details_is_cut(language: str, end: str) -> None:
    footnotes, _ = numbered([[elsewhere("a", "b", "c", "d", "e")]], language)
    assert footnotes[0].endswith(f"processor: c; {end}")


def test_nothing_to_say() -> None:
    assert numbered([], "en") == ((), [])
    assert numbered([[], []], "en") == ((), [(), ()])
