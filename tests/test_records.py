from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import (
    LAST_S,
    Budget,
    Caution,
    Outcome,
    Part,
    Result,
    Status,
    Step,
    Variant,
    finite,
    metric_group,
    read_json,
    short_texts,
    to_json,
    write_json,
)

VARIANT = Variant("yolo", "original", "alpha", "yolo", "yolo11n.pt")

texts = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | texts
statuses: st.SearchStrategy[Status] = st.sampled_from(["ok", "skipped", "failed"])
outcomes = st.builds(Outcome, statuses, texts)
cautions = st.lists(st.builds(Caution, texts, texts, texts), max_size=2).map(tuple)
measurements = st.dictionaries(texts, numbers, max_size=3)
samples = st.dictionaries(texts, st.lists(numbers, max_size=3), max_size=2)
text_by_name = st.dictionaries(texts, texts, max_size=3)
options = st.dictionaries(texts, scalars | st.lists(scalars, max_size=2) | text_by_name, max_size=3)
variants = st.builds(
    Variant,
    model=texts,
    method=texts,
    team=texts,
    family=texts,
    source=texts,
    weights=texts,
    data=st.none() | texts,
    chain=st.lists(st.builds(Step, texts, st.dictionaries(texts, scalars, max_size=2)), max_size=3).map(tuple),
    options=options,
    metrics=st.lists(texts, max_size=2).map(tuple),
    devices=st.sampled_from([("cpu",), ("cuda",), ("cpu", "cuda")]),
    batch_size=st.integers(1, 64),
    threads=st.none() | st.integers(1, 64),
    limit=st.none() | st.integers(1, 64),
    budget=st.builds(Budget, st.integers(1, 9), numbers, numbers, st.integers(1, 9), numbers, numbers),
    folder=texts,
    requires=st.dictionaries(texts, scalars, max_size=2),
)
results = st.builds(
    Result,
    variant=variants,
    status=statuses,
    reason=texts,
    measurements=measurements,
    samples=samples,
    cautions=cautions,
    environment=text_by_name,
    outcomes=st.dictionaries(texts, outcomes, max_size=2),
    facts=text_by_name,
    started_s=st.floats(0, LAST_S),
    ended_s=st.floats(0, LAST_S),
)
parts = st.builds(
    Part,
    outcome=outcomes,
    quality=st.none() | outcomes,
    measurements=measurements,
    samples=samples,
    cautions=cautions,
    environment=text_by_name,
    facts=text_by_name,
)


def through_text(record: Any) -> Any:
    return json.loads(json.dumps(to_json(record), allow_nan=False))


@settings(max_examples=40, deadline=None)
@given(variants)
def test_a_variant_survives_json(variant: Variant) -> None:
    assert Variant.from_json(through_text(variant)) == variant


def test_a_variant_that_an_older_version_wrote_requires_nothing() -> None:
    data = to_json(VARIANT)
    del data["requires"]
    assert Variant.from_json(data) == VARIANT


def test_a_variant_is_labelled_as_its_row_is() -> None:
    assert VARIANT.label == "original"
    assert dataclasses.replace(VARIANT, batch_size=4, setting="threads=1").label == "original [batch 4, threads=1]"


@pytest.mark.parametrize(("chain", "is_original"), [((), True), ((Step("original"),), True), ((Step("fp16"),), False)])
def test_an_original_is_recognised_by_its_chain(chain: tuple[Step, ...], is_original: bool) -> None:
    assert dataclasses.replace(VARIANT, method="small", chain=chain).is_original is is_original


@settings(max_examples=40, deadline=None)
@given(results)
def test_a_result_survives_json(result: Result) -> None:
    assert Result.from_json(through_text(result)) == result


def test_a_result_that_an_older_version_wrote_has_no_cause() -> None:
    result = Result(Variant("m", "x", "t", "f", "s"), "failed", "why", outcomes={"cpu": Outcome("failed", "why")})
    old_json = json.loads(json.dumps(to_json(result)))
    del old_json["cause"], old_json["outcomes"]["cpu"]["cause"]
    assert Result.from_json(old_json) == result
    with_cause = dataclasses.replace(result, cause="weights", outcomes={"cpu": Outcome("failed", "why", "weights")})
    assert Result.from_json(json.loads(json.dumps(to_json(with_cause)))) == with_cause


@settings(max_examples=40, deadline=None)
@given(parts)
def test_a_part_survives_json(part: Part) -> None:
    assert Part.from_json(through_text(part)) == part


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "variant.json"
    variant = Variant("модель", "<b>", "🙂", "yolo", "a\nb", options={"x": [1, "й"]}, chain=(Step("fp16"),))
    write_json(path, variant)
    assert Variant.from_json(read_json(path)) == variant
    assert "модель" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_a_file_is_kept_when_its_successor_cannot_be_written(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "result.json"
    write_json(path, Result(VARIANT, "ok"))
    old_content = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        write_json(path, Result(VARIANT, "ok", measurements={"cpu/latency_p50_ms": value}))
    assert path.read_bytes() == old_content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_kept_when_writing_its_successor_fails(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, Result(VARIANT, "ok"))
    old_content = path.read_bytes()
    (tmp_path / "result.json.partial").mkdir()
    with pytest.raises(OSError, match="partial"):
        write_json(path, Result(VARIANT, "failed"))
    assert path.read_bytes() == old_content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"code":"a","short":{"en":"it drifted","ru":"менялось"}}', ("a", {"en": "it drifted", "ru": "менялось"})),
        ('{"code":"a","short":{}}', ("a", {})),  # a table does not show it
        ('{"code":"a","short":{"en":7}}', ("a", {"en": "a"})),
        ('{"code":"a","short":{"ru":"менялось"}}', ("a", {"en": "a", "ru": "менялось"})),
        ("[" * 2400 + "]" * 2400, None),
        ("no JSON", None),
    ],
)
def test_the_words_of_a_caution_are_read_or_its_code_stands_for_them(text: str, expected: Any) -> None:
    assert short_texts(text) == expected


def test_only_numbers_are_kept() -> None:
    numbers = {"a": 1.5, "b": math.nan, "c": math.inf, "d": -math.inf, "e": 0, "f": True}
    assert finite(numbers) == {"a": 1.5, "e": 0.0, "f": 1.0}
    assert all(type(value) is float for value in finite(numbers).values())


def test_a_step_is_written_as_on_the_command_line() -> None:
    assert str(Step("fp16")) == "fp16"
    assert str(Step("prune_magnitude", {"amount": 0.5, "scope": "global"})) == "prune_magnitude:amount=0.5,scope=global"


def test_the_least_number_of_calls_gives_the_median_an_interval() -> None:
    from mlflow_compress.percentiles import carries

    assert carries(Budget().fewest_iterations, 50)


@pytest.mark.parametrize(("device", "group"), [("cpu", "cpu"), ("cuda", "gpu"), ("mps", "gpu"), ("xpu", "gpu")])
def test_metrics_are_named_for_their_device(device: str, group: str) -> None:
    assert metric_group(device) == group


def test_a_variant_knows_whether_it_is_the_original() -> None:
    chains = {"original": True, "bf16": False, "prune_magnitude:amount=0.5+bf16": False}
    for text, is_original in chains.items():
        assert Variant("m", text, "t", "python", "own.py", chain=parse_chain(text)).is_original is is_original
