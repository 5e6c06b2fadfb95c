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
from mlflow_compress.untrusted import Malformed, parse_json, read_json, record

TOO_DEEP = "x.json is not JSON: recursion limit exceeded at line 1 column 202."
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
        ("", "x.json is not JSON: EOF while parsing a value at line 1 column 0."),
        ("{", "x.json is not JSON: EOF while parsing an object at line 1 column 1."),
        ("[" * 200_000, TOO_DEEP),
        (
            '{"a":' * 200_000 + "1" + "}" * 200_000,
            "x.json is not JSON: recursion limit exceeded at line 1 column 1006.",
        ),
        ("[NaN]", "x.json contains NaN, which is not a number."),
        ("[-Infinity]", "x.json contains -Infinity, which is not a number."),
        ("[1e999]", "x.json contains a number that is too large."),
        ("[" + "9" * 5000 + "]", "x.json is not JSON: number out of range at line 1 column 4303."),
        (b'["\xff"]', "x.json is not JSON: invalid unicode code point at line 1 column 3."),
        ('["x"]'.encode("utf-16"), "x.json is not JSON: expected value at line 1 column 1."),
        ('["\ud800"]', "x.json is not in UTF-8."),
        ('["\\ud800"]', "x.json is not JSON: unexpected end of hex escape at line 1 column 9."),
        ("1" * 1025, "x.json has 0.0 MiB; at most 0.0 MiB are allowed."),
    ],
)
def test_what_is_no_such_json_is_named_in_one_sentence(text: str | bytes, sentence: str) -> None:
    limit = 1024 if sentence.startswith("x.json has") else 2**22
    with pytest.raises(Malformed) as error:
        parse_json(text, "x.json", limit)
    assert str(error.value) == sentence


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, '["' + "[" * 900 + '\\"]"]', "[[], []]"])
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
    with pytest.raises(Malformed, match=r"result\.json has 100\.0 MiB; at most 64\.0 MiB are allowed\."):
        read_json(path)


@pytest.mark.posix
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(Malformed, match=r"result\.json is not a file\."):
        read_json(tmp_path / "result.json")


def test_a_record_is_made_with_its_own_types() -> None:
    scalars: dict[str, str | int | None] = {"a": None, "b": True, "c": 2, "d": "e"}
    data = {"name": "я", "kind": "b", "inner": {"size": 2}, "several": [{}, {"size": 3}], "pair": [1, 2.5]}
    outer = record(Outer, {**data, "numbers": {"x": [1, 2.5]}, "scalars": scalars, "anything": [{}]}, "it")
    several = (Inner(1), Inner(3))
    assert outer == Outer("я", "b", Inner(2), several, (1.0, 2.5), {"x": [1.0, 2.5]}, scalars, [{}])
    assert record(Outer, {"name": "a"}, "it") == Outer("a")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "it: Input should be an object."),
        (200, "it: Input should be an object."),
        ({}, "it.name: Field required."),
        ({"name": 5}, "it.name: Input should be a valid string."),
        ({"name": "a", "kind": "c"}, "it.kind: Input should be '', 'a' or 'b'."),
        ({"name": "a", "kind": []}, "it.kind: Input should be '', 'a' or 'b'."),
        ({"name": "a", "inner": {"size": True}}, "it.inner.size: Input should be a valid integer."),
        ({"name": "a", "several": {"size": 1}}, "it.several: Input should be a valid array."),
        ({"name": "a", "several": [{}, {"size": 1.5}]}, "it.several.1.size: Input should be a valid integer."),
        ({"name": "a", "pair": [1]}, "it.pair.1: Field required."),
        ({"name": "a", "numbers": {"x": [1.0, float("nan")]}}, "it.numbers.x.1: Input should be a finite number."),
        ({"name": "a", "numbers": {"x": ["1"]}}, "it.numbers.x.0: Input should be a valid number."),
        (
            {"name": "a", "new\x1b": 1},
            "it.new\ufffd is unknown to this version of mlflow-compress. Is it from a newer one?",
        ),
    ],
)
def test_what_is_no_such_record_is_named_in_one_sentence(data: object, sentence: str) -> None:
    with pytest.raises(Malformed) as error:
        record(Outer, data, "it")
    assert str(error.value) == sentence


@pytest.mark.parametrize("key", ["status", "variant", "measurements", "samples", "cautions", "outcomes", "started_s"])
@pytest.mark.parametrize("value", [{"a": {"b": []}}, ["x", 1], 200, "x", None, -1e300])
def test_a_result_with_a_field_of_another_type_is_none(key: str, value: object) -> None:
    with pytest.raises(Malformed):
        Result.from_json({**RESULT, key: "x" if key == "started_s" and value == 200 else value})


def test_half_a_character_is_in_no_record() -> None:
    with pytest.raises(Malformed, match="surrogates not allowed"):
        record(Outer, {"name": "\ud800"}, "it")


def test_a_result_of_no_time_that_a_calendar_has_is_none() -> None:
    with pytest.raises(Malformed, match="impossible times: 1e\\+18 s"):
        Result.from_json({**RESULT, "started_s": 1e18})


def test_a_part_and_a_variant_are_checked_alike() -> None:
    with pytest.raises(Malformed, match=r"the part\.outcome: Field required"):
        Part.from_json({})
    with pytest.raises(Malformed, match=r"the variant\.chain\.0\.method: Field required"):
        Variant.from_json({**RESULT["variant"], "chain": [{}]})
