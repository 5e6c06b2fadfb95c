from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.records import Comparison, Row
from mlflow_compress.renderers.csv import Csv
from mlflow_compress.reporting.table_text import METRICS

any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def bare(text: str) -> str:
    """Undo the guard, as in the renderer's docstring."""
    return text.removeprefix("'")


def test_golden(comparison: Comparison, golden: Callable[[str, bytes], None]) -> None:
    golden("comparison.csv", Csv().render(comparison))


def test_numbers_have_all_their_digits(comparison: Comparison) -> None:
    first = read(Csv().render(comparison))[0]
    assert {name: float(first[name]) for name in comparison.rows[0].values} == comparison.rows[0].values
    assert (first["run_id_cpu"], first["run_id_gpu"]) == ("aaaa1111", "bbbb2222")


def test_columns_are_there_without_any_row() -> None:
    header = next(csv.reader([Csv().render(Comparison(())).decode()]))
    assert header == [
        "team",
        "model",
        "method",
        *METRICS,
        "run_id_cpu",
        "run_id_gpu",
        "hardware",
        "by_hand",
        "pareto",
        "notes",
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start: str) -> None:
    row = Row(f"{start}1+1", f"{start}cmd", f"{start}x", notes=(0,))
    content = Csv().render(Comparison((row,), footnotes=(f"{start}note",)))
    (line,) = read(content)
    for name in ("team", "model", "method", "notes"):
        assert line[name].startswith(f"'{start}")


def test_what_is_no_number_is_left_empty() -> None:
    row = Row("a", "b", "c", values={"cpu/latency_p50_ms": float("nan"), "size/weights_mib": float("inf")})
    (line,) = read(Csv().render(Comparison((row,))))
    assert (line["cpu/latency_p50_ms"], line["size/weights_mib"]) == ("", "")


@given(any_text, any_text, any_text, any_text)
def test_any_text_survives(team: str, model: str, method: str, note: str) -> None:
    comparison = Comparison((Row(team, model, method, notes=(0,)),) * 2, footnotes=(note,))
    lines = read(Csv().render(comparison))
    assert len(lines) == 2
    for line in lines:
        assert [bare(line[name]) for name in ("team", "model", "method", "notes")] == [team, model, method, note]
