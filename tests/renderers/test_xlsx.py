from __future__ import annotations

import io
import math
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import CompressError
from mlflow_compress.records import Comparison, MetricFacts, Row
from mlflow_compress.renderers.xlsx import Xlsx

openpyxl = pytest.importorskip("openpyxl", reason="the extra xlsx is not installed")


def read(comparison: Comparison) -> Any:
    return openpyxl.load_workbook(io.BytesIO(Xlsx().render(comparison)))


def column(sheet: Any, header: str) -> list[Any]:
    """Return the cells below a header."""
    (cells,) = (cells for cells in sheet.iter_cols() if cells[0].value == header)
    return list(cells[1:])


def test_the_first_sheet_is_the_table_with_numbers_as_people_read_them(comparison: Comparison) -> None:
    sheet = read(comparison)["Comparison"]
    assert [cell.value for cell in sheet[1]] == [
        "Team", "Model", "Method", "Weight size, MB", "weights, relative to the original", "CPU ms", "GPU ms",
        "GPU inference time, median, relative to the original", "RAM (MB)", "VRAM (MB)",
        "mAP50", "WER", "WER, difference from the original", "CER", "CER, difference from the original",
        "scored samples", "CPU run", "GPU run", "Notes",
    ]  # fmt: skip

    def shown(header: str) -> list[tuple[object, str]]:
        return [(cell.value, cell.number_format) for cell in column(sheet, header) if cell.value is not None]

    assert shown("Weight size, MB")[:2] == [(96.66796875, "0.00"), (48.349609375, "0.00")]
    assert shown("weights, relative to the original") == [(0.50016, '0.00"x"')]
    assert shown("CPU ms") == [(492.7215, "0.0")]
    assert shown("GPU ms") == [(12.3456, "0.00"), (8.1, "0.000")]
    assert shown("mAP50") == [(0.7912, "0.0000")]
    assert shown("WER, difference from the original") == [(0.0031, "+0.0000;-0.0000;±0")]
    assert [(cell.value, cell.font.bold) for cell in column(sheet, "Method")[:2]] == [
        ("original", True), ("fp16 [batch 16]", False)
    ]  # fmt: skip
    run = column(sheet, "CPU run")[0]
    assert (run.value, run.hyperlink.target) == ("aaaa1111", "http://mlflow.example:5000/#/experiments/1/runs/aaaa1111")
    assert (sheet.freeze_panes, sheet.max_row) == ("D2", 1 + len(comparison.rows))
    assert sheet.auto_filter.ref == sheet.dimensions


def test_what_may_be_noise_says_so_and_the_columns_are_those_that_were_chosen() -> None:
    latency = "cpu/latency_p50_ms"
    score = {"quality/f1": 0.5, "quality/f1_difference": -0.02, "quality/f1_difference_low": -0.1,
             "quality/f1_difference_high": 0.1}  # fmt: skip
    row = Row("a", "m", "x", {latency: 1234.5678, **score}, {latency: 0.99}, {latency: (0.9, 1.1)})
    sheet = read(Comparison((row,), columns=("method", latency, "quality"), language="ru"))["Сравнение"]
    assert [(cell.value, cell.number_format) for cell in sheet[2]] == [
        ("x", "General"), (1234.5678, "0"), (0.99, '"≈"0.00"x"'), (0.5, "0.0000"),
        (-0.02, '"≈"+0.000;"≈"-0.000;±0'),
    ]  # fmt: skip
    assert sheet.freeze_panes == "B2"


def test_ratios_show_the_digits_of_the_table() -> None:
    size = "size/weights_mib"
    ratios = (0.0034, 0.05, 0.5, 12.0, 345.6)
    rows = tuple(Row("a", "m", str(ratio), {size: ratio}, {size: ratio}) for ratio in ratios)
    cells = column(read(Comparison(rows, columns=("method", size)))["Comparison"], "weights, relative to the original")
    assert [cell.number_format for cell in cells] == ['0.0000"x"', '0.000"x"', '0.00"x"', '0.00"x"', '0"x"']


def test_the_score_that_decides_comes_first() -> None:
    values = {"quality/a_metric": 1.0, "quality/b_metric": 2.0}
    facts = {name: MetricFacts({"en": name[-8:]}, None, True, rank) for name, rank in zip(values, (2, 1), strict=True)}
    header = [cell.value for cell in read(Comparison((Row("a", "m", "x", values),), metrics=facts))["Comparison"][1]]
    assert header.index("b_metric") < header.index("a_metric")


def test_links_that_no_browser_should_open_are_text() -> None:
    row = Row("a", "m", "x", runs={"cpu": "1"}, links={"cpu": "file:///etc/passwd"})
    assert column(read(Comparison((row,)))["Comparison"], "CPU run")[0].hyperlink is None


def test_all_numbers_are_on_the_second_sheet(comparison: Comparison) -> None:
    sheet = read(comparison)["All numbers"]
    header, first, second = ([cell.value for cell in line] for line in list(sheet.rows)[:3])
    by_header = dict(zip(header, first, strict=True))
    assert (by_header["Team"], by_header["Model"], by_header["Method"]) == ("alpha", "yolo11l", "original")
    assert by_header["weights, MB"] == 96.66796875
    assert by_header["CPU inference time, median, ms"] == 492.7215
    assert by_header["mAP50"] == 0.7912
    assert dict(zip(header, second, strict=True))["weights, relative to the original"] == 0.50016
    assert dict(zip(header, second, strict=True))["CPU inference time, median, ms"] is None
    assert (sheet.freeze_panes, sheet.max_row) == ("D2", 1 + len(comparison.rows))


def test_what_else_is_to_know_is_on_the_third_sheet(comparison: Comparison) -> None:
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
    line = list(read(Comparison((row,)))["All numbers"].rows)[1]
    assert [cell.value for cell in line[3:]] == [None] * len(line[3:])


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(CompressError, match=r'pip install "mlflow-compress\[xlsx\]"'):
        Xlsx().check()
