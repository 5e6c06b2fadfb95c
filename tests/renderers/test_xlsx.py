from __future__ import annotations

import io
import math
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import CompressError
from mlflow_compress.records import Comparison, Row
from mlflow_compress.renderers.xlsx import Xlsx

openpyxl = pytest.importorskip("openpyxl", reason="the extra xlsx is not installed")


def read(it: Comparison) -> Any:
    return openpyxl.load_workbook(io.BytesIO(Xlsx().render(it)))


def test_numbers_are_numbers_and_all_of_them_are_there(comparison: Comparison) -> None:
    sheet = read(comparison)["Comparison"]
    header, first, second = ([cell.value for cell in line] for line in list(sheet.rows)[:3])
    named = dict(zip(header, first, strict=True))
    assert (named["Team"], named["Model"], named["Method"]) == ("alpha", "yolo11l", "original")
    assert named["weights, MB"] == 96.66796875
    assert named["CPU inference time, median, ms"] == 492.7215
    assert named["mAP50"] == 0.7912
    assert dict(zip(header, second, strict=True))["weights, divided by the original's"] == 0.50016
    assert dict(zip(header, second, strict=True))["CPU inference time, median, ms"] is None
    assert (sheet.freeze_panes, sheet.max_row) == ("D2", 1 + len(comparison.rows))
    assert sheet.auto_filter.ref == sheet.dimensions


def test_what_else_is_to_know_is_on_the_second_sheet(comparison: Comparison) -> None:
    texts = [line[0].value for line in read(comparison)["Notes"].rows]
    assert texts[0] == "[1] caution: the machine was busy"
    assert any("over 3 models" in text for text in texts)
    assert texts[-1].startswith("failed: Команда 2")


@pytest.mark.parametrize("text", ["=1+1", "=cmd|' /C calc'!A0", "+1", "@SUM(A1)", "#N/A", "#REF!", "12", "TRUE", "1%"])
def test_a_text_is_never_more_than_text(text: str) -> None:
    sheet = read(Comparison((Row(text, text, text, notes=(0,)),), footnotes=(text,)))["Comparison"]
    for cell in (*list(sheet.rows)[1][:3], list(sheet.rows)[1][-1]):
        assert (cell.data_type, cell.value) == ("s", text)


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.text(st.characters()))
def test_any_text_survives(team: str, model: str) -> None:
    line = list(read(Comparison((Row(team, model, "fp16"),)))["Comparison"].rows)[1]
    assert line[0].value == "".join(char for char in team if char not in "\ufffe\uffff") or not line[0].value
    assert line[2].value == "fp16"


def test_what_is_no_number_is_left_empty() -> None:
    row = Row("a", "b", "c", values={"cpu/latency_p50_ms": math.nan}, ratios={"cpu/latency_p50_ms": math.inf})
    line = list(read(Comparison((row,)))["Comparison"].rows)[1]
    assert [cell.value for cell in line[3:]] == [None] * len(line[3:])


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(CompressError, match=r'pip install "mlflow-compress\[xlsx\]"'):
        Xlsx().check()
