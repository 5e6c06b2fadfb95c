from __future__ import annotations

import pytest

from mlflow_compress.reporting.footnotes import CAUTION, Note, numbered

BUSY = Note(CAUTION, "the machine was busy", code="busy_machine")
RANDOM_CALIBRATION = Note(CAUTION, "calibrated on random inputs", code="random_calibration")


def elsewhere(*models: str) -> Note:
    return Note("hardware", "CPU", tuple(f"processor: {model}" for model in models))


def test_what_ruins_a_result_comes_before_what_makes_it_noisy() -> None:
    footnotes, indices = numbered([[BUSY], [BUSY, elsewhere("EPYC"), RANDOM_CALIBRATION], [Note("random")]], "en")
    assert [footnote.partition(":")[0] for footnote in footnotes] == ["random weights", "caution", "CPU", "caution"]
    assert footnotes[1] == "caution: calibrated on random inputs"
    assert footnotes[3] == "caution: the machine was busy"
    assert indices == [(3,), (1, 2, 3), (0,)]


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
