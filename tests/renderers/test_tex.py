from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_compress.plain_text import plain
from mlflow_compress.records import Comparison, Failure, Row
from mlflow_compress.renderers.tex import _COMMANDS, MOST_ON_A_PAGE, Tex, escape

any_text = st.text(alphabet=st.characters() | st.sampled_from("\\{}$&#^_~%<>|\"'`-,[]*≈\n\t "))
BACK = {command: char for char, command in _COMMANDS.items()}
COMMAND = re.compile("|".join(map(re.escape, sorted(BACK, key=len, reverse=True))))


def unescape(text: str) -> str:
    return COMMAND.sub(lambda match: BACK[match.group()], text)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_golden(comparison: Comparison, golden: Callable[[str, bytes], None], language: str) -> None:
    golden(f"comparison.{language}.tex", Tex().render(dataclasses.replace(comparison, language=language)))


@example("-\\-")
@given(any_text)
def test_any_text_survives_and_no_special_is_left(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == plain(text)
    left = COMMAND.sub(" ", escaped)  # the characters around a command are not a ligature
    assert not re.search(r"[\\{}$&#^_~%<>|\"'`\[\]*]|--|,,", left)


@given(any_text, any_text, any_text, any_text)
def test_every_row_has_its_cells_whatever_they_hold(team: str, model: str, method: str, note: str) -> None:
    failures = (Failure(team, model, method, "failed", "", note, "run1"),)
    content = Tex().render(Comparison((Row(team, model, method, notes=(0,)),) * 3, failures, (note,), team)).decode()
    (body,) = re.findall(r"\\midrule\n(.*)\\bottomrule", content, re.DOTALL)
    lines = body.splitlines()
    assert len(lines) - lines.count(r"\addlinespace") == 3
    for line in lines:
        assert line == r"\addlinespace" or len(re.findall(r"(?<!\\)&", line)) == 8
    without = re.sub(r"\\[\\{}]", "", content)
    assert without.count("{") == without.count("}")


def test_many_rows_go_over_pages() -> None:
    few_rows, many_rows = (Tex().render(Comparison((Row("a", "b", "c"),) * count)) for count in (1, MOST_ON_A_PAGE + 1))
    assert b"{tabular}" in few_rows
    assert b"longtable}{" not in few_rows
    assert b"\\begin{longtable}{" in many_rows
    assert b"{tabular}" not in many_rows
