from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.records import Part, Result, Variant, to_json
from mlflow_compress.untrusted import MOST_DEPTH, Unreadable, parse_json, read_json, record

RESULT: dict[str, Any] = json.loads(json.dumps(to_json(Result(Variant("m", "x", "t", "python", "m.py"), "ok"))))


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["", "a", "b"] = ""
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    numbers: Mapping[str, list[float]] = field(default_factory=dict)
    scalars: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    anything: Any = None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "x.json is not JSON: Expecting value at line 1."),
        ("{", "x.json is not JSON: Expecting property name enclosed in double quotes at line 1."),
        ("[" * 200_000, "x.json holds more than 64 brackets within brackets."),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "x.json holds more than 64 brackets within brackets."),
        ('["\\\\",' + "[" * 65 + "]" * 66, "x.json holds more than 64 brackets within brackets."),
        ('{"a": 1, "a": 2}', "x.json holds a key twice in one object."),
        ("[NaN]", "x.json holds NaN, which is no number."),
        ("[-Infinity]", "x.json holds -Infinity, which is no number."),
        ("[1e999]", "x.json holds a number that is too large."),
        ("[" + "9" * 5000 + "]", "x.json holds a number of thousands of digits."),
        (b'["\xff"]', "x.json is not in UTF-8."),
        ('["x"]'.encode("utf-16"), "x.json is not in UTF-8."),
        ('["\ud800"]', "x.json is not in UTF-8."),
        ("1" * 1025, "x.json takes 0.0 MiB, more than the 0.0 it may."),
    ],
)
def test_what_is_no_such_json_is_named_in_one_sentence(text: str | bytes, sentence: str) -> None:
    most = 1024 if sentence.startswith("x.json takes") else 2**22
    with pytest.raises(Unreadable) as error:
        parse_json(text, "x.json", most)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "text", ["[" * MOST_DEPTH + "]" * MOST_DEPTH, '["' + "[" * 900 + '\\"]"]', '["\\\\", "[["]', "[[], []]"]
)
def test_brackets_in_texts_and_beside_each_other_are_not_deep(text: str) -> None:
    assert parse_json(text, "x.json") == json.loads(text)


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.sampled_from('[]{}"\\aя'))
json_data = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=20,
)


@given(json_data)
def test_what_json_writes_is_read(data: Any) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(data, ensure_ascii=ascii_only), "x") == data


def test_a_large_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    path.chmod(0)
    with pytest.raises(Unreadable, match=r"result\.json takes 100\.0 MiB, more than the 64\.0 it may\."):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(Unreadable, match=r"result\.json is no file\."):
        read_json(tmp_path / "result.json")


def test_a_record_is_made_with_its_own_types() -> None:
    scalars: dict[str, str | int | None] = {"a": None, "b": True, "c": 2, "d": "e"}
    data = {"name": "я", "kind": "b", "inner": {"size": 2}, "several": [{}, {"size": 3}], "pair": [1, 2.5]}
    made = record(Outer, {**data, "numbers": {"x": [1, 2.5]}, "scalars": scalars, "anything": [{}]}, "it")
    several = (Inner(1), Inner(3))
    assert made == Outer("я", "b", Inner(2), several, (1.0, 2.5), {"x": [1.0, 2.5]}, scalars, [{}])
    assert record(Outer, {"name": "a"}, "it") == Outer("a")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "it is [], not an object."),
        (200, "it is 200, not an object."),
        ({}, "it lacks name."),
        ({"name": 5}, "it.name is 5, not text."),
        ({"name": "\ud800"}, "it.name is '\\ud800', not text."),
        ({"name": "a", "kind": "c"}, "it.kind is 'c', not one of '', 'a', 'b'."),
        ({"name": "a", "kind": []}, "it.kind is [], not one of '', 'a', 'b'."),
        ({"name": "a", "inner": {"size": True}}, "it.inner.size is True, not a whole number."),
        ({"name": "a", "several": {"size": 1}}, "it.several is {'size': 1}, not a list."),
        (
            {"name": "a", "several": [{}, {"size": 2**64}]},
            "it.several[1].size is 18446744073709551616, not a whole number.",
        ),
        ({"name": "a", "pair": [1]}, "it.pair is [1], not a list of 2."),
        ({"name": "a", "numbers": {"x": [1.0, float("nan")]}}, "it.numbers['x'][1] is nan, not a number."),
        ({"name": "a", "numbers": {"x": [2**64]}}, "it.numbers['x'][0] is 18446744073709551616, not a number."),
        (
            {"name": "a", "new\x1b\n": 1},
            "it has the key 'new\\x1b\\n', which this version of mlflow-compress does not know: "
            "it may be of a newer one.",
        ),
    ],
)
def test_what_is_no_such_record_is_named_in_one_sentence(data: object, sentence: str) -> None:
    with pytest.raises(Unreadable) as error:
        record(Outer, data, "it")
    assert str(error.value) == sentence


@pytest.mark.parametrize("key", ["status", "variant", "measurements", "samples", "cautions", "outcomes", "started_s"])
@pytest.mark.parametrize("value", [{"a": {"b": []}}, ["x", 1], 200, "x", None, -1e300])
def test_a_result_with_a_field_of_another_type_is_none(key: str, value: object) -> None:
    with pytest.raises(Unreadable):
        Result.from_json({**RESULT, key: "x" if key == "started_s" and value == 200 else value})


def test_a_result_of_no_time_that_a_calendar_has_is_none() -> None:
    with pytest.raises(Unreadable, match="began at 1e\\+18 s"):
        Result.from_json({**RESULT, "started_s": 1e18})


def test_a_part_and_a_variant_are_checked_alike() -> None:
    with pytest.raises(Unreadable, match="the part lacks outcome"):
        Part.from_json({})
    with pytest.raises(Unreadable, match=r"the variant\.chain\[0\] lacks method"):
        Variant.from_json({**RESULT["variant"], "chain": [{}]})
