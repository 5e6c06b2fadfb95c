"""Only parts that MLflow can store are accepted from a worker."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring import worker_part
from mlflow_compress.records import Caution, Outcome, Part, write_json

OK: Mapping[str, Any] = {"outcome": {"status": "ok"}}
_MORE = "at most 2,000 are allowed."
DATA = {"data_name": "sst2", "data_source": "sst2", "data_digest": "0123456789abcdef"}


def test_what_an_honest_worker_writes_is_read_as_it_was(tmp_path: Path) -> None:
    part = Part(
        Outcome("failed", "why", "measuring"),
        Outcome("ok"),
        {"cpu/latency_p50_ms": 1.5, "quality/f1_micro": 0.5},
        {"cpu/latency_ms": [1.0, 2.0]},
        (Caution("busy", "the machine was busy"),),
        {"cpu_model": "Xeon"},
        {"protocol.f1_micro": "x", **DATA},
    )
    write_json(tmp_path / "part.json", part)
    assert worker_part.read(tmp_path / "part.json") == part


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({**OK, "measurements": {"a\nb": 1}}, "A name in the part's measurements is not valid in MLflow: 'a\\nb'."),
        ({**OK, "measurements": {"../a": 1}}, "A name in the part's measurements is not valid in MLflow: '../a'."),
        ({**OK, "facts": {"": "x"}}, "A name in the part's facts is not valid in MLflow: ''."),
        ({**OK, "facts": {"x" * 201: ""}}, f"A name in the part's facts is not valid in MLflow: '{'x' * 78}…."),
        ({**OK, "measurements": {str(n): 1 for n in range(3000)}}, f"The part has 3,000 measurements; {_MORE}"),
        ({**OK, "cautions": [{"code": "a", "message": "b"}] * 2001}, f"The part has 2,001 cautions; {_MORE}"),
        ({**OK, "facts": {"data_digest": "0"}}, "The part's data_name must have 1 to 500 characters."),
        ({**OK, "facts": {**DATA, "data_digest": "0" * 40}}, "The part's data_digest must have 1 to 36 characters."),
    ],
)
def test_a_part_that_mlflow_would_reject_is_rejected(tmp_path: Path, part: Any, sentence: str) -> None:
    (tmp_path / "part.json").write_text(json.dumps(part))
    with pytest.raises(WorkerError) as raised:
        worker_part.read(tmp_path / "part.json")
    assert str(raised.value) == f"wrote no valid result: {sentence}"


@pytest.mark.parametrize(
    "text", ["", "{}", "[1, 2]", '{"outcome": 3}', '{"outcome": {"sta', "[" * 200_000, "NaN", "\0"]
)
def test_what_is_not_a_record_is_not_a_part(tmp_path: Path, text: str) -> None:
    (tmp_path / "part.json").write_text(text)
    with pytest.raises(WorkerError, match=r"^wrote no valid result: [^\n]{5,200}$"):
        worker_part.read(tmp_path / "part.json")


@pytest.mark.posix
@pytest.mark.parametrize("make", [Path.mkdir, getattr(os, "mkfifo", None), lambda path: path.symlink_to("/dev/zero")])
def test_what_is_not_a_file_is_not_a_part(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "part.json")
    with pytest.raises(WorkerError, match=r"wrote no valid result: part\.json is not a file\.$"):
        worker_part.read(tmp_path / "part.json")


def test_where_there_is_nothing_the_caller_knows_more(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        worker_part.read(tmp_path / "part.json")


def test_a_reason_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    write_json(tmp_path / "part.json", Part(Outcome("failed", "x" * 10**6), Outcome("skipped", "y" * 10**6)))
    part = worker_part.read(tmp_path / "part.json")
    assert part.outcome.reason == "x" * 2000
    assert part.quality is not None
    assert part.quality.reason == "y" * 2000
