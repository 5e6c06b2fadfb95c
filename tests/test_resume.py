"""Which variants are the same, so that one result does for both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlflow_compress import resume
from mlflow_compress.records import Budget, Result, Step, Variant
from mlflow_compress.spool import Address, Spool
from mlflow_compress.store import Store


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    (tmp_path / "model.py").write_text("a = 1")
    (tmp_path / "data.csv").write_text("text,label\n")
    return Variant(
        "small", "original", "alpha", "python", "model.py", data="data.csv:text=text",
        chain=(Step("original"),), folder=str(tmp_path),
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"team": "beta"},
        {"method": "x"},
        {"chain": (Step("fp16"),)},
        {"chain": (Step("original", {"amount": 0.5}),)},
        {"batch_size": 2},
        {"threads": 1},
        {"devices": ("cpu", "cuda")},
        {"weights": "random"},
        {"data": None},
        {"limit": 5},
        {"seed": 1},
        {"options": {"tokens": 64}},
        {"interleave": True},
        {"budget": Budget(min_iterations=7)},
    ],
    ids=str,
)
def test_another_setting_is_another_variant(variant: Variant, change: dict[str, Any]) -> None:
    assert resume.digest(dataclasses.replace(variant, **change)) != resume.digest(variant)


def test_the_timeout_changes_nothing(variant: Variant) -> None:
    other = dataclasses.replace(variant, budget=Budget(timeout_seconds=5))
    assert resume.digest(other) == resume.digest(variant)


def test_the_same_files_elsewhere_are_the_same(variant: Variant, tmp_path: Path) -> None:
    elsewhere = tmp_path / "clone"
    elsewhere.mkdir()
    for name in ("model.py", "data.csv"):
        (elsewhere / name).write_bytes((tmp_path / name).read_bytes())
    assert resume.digest(dataclasses.replace(variant, folder=str(elsewhere))) == resume.digest(variant)
    absolute = dataclasses.replace(variant, data=f"{tmp_path / 'data.csv'}:text=text")
    assert resume.digest(absolute) == resume.digest(variant)


@pytest.mark.parametrize("name", ["model.py", "data.csv"])
def test_a_changed_file_is_another_variant(variant: Variant, tmp_path: Path, name: str) -> None:
    before = resume.digest(variant)
    (tmp_path / name).write_text("b = 2")
    assert resume.digest(variant) != before


def test_a_folder_counts_with_its_files(variant: Variant, tmp_path: Path) -> None:
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    local = dataclasses.replace(variant, weights=str(tmp_path / "weights"))
    before = resume.digest(local)
    (tmp_path / "weights" / "deep" / "file").write_text("x")
    assert resume.digest(local) != before


@pytest.mark.parametrize("source", ["x" * 5000, "\0", "org/name", "models:/name/1", "a:b=c,"])
def test_names_that_are_no_files(variant: Variant, source: str) -> None:
    hostile = dataclasses.replace(variant, source=source, weights=source, data=source)
    assert len(resume.digest(hostile)) == 64


def test_only_a_whole_and_good_result_counts(store: Store, variant: Variant) -> None:
    number = store.experiment_id("resume")
    digest = resume.digest(variant)
    result = Result(variant, "ok", measurements={"size/params": 7.0})

    def log(status: str, **tags: str) -> str:
        run = store.start(number, "run", {})
        store.log(run, dataclasses.replace(result, status=status), {}, "", {})  # type: ignore[arg-type]
        store.tag(run, {"compress.variant_digest": digest, **tags})
        return run

    log("ok")
    log("failed", **{"compress.logged": "complete"})
    assert resume.measured(store, number, digest) is None
    run = log("ok", **{"compress.logged": "complete"})
    found = resume.measured(store, number, digest)
    assert found is not None
    assert run in found[0]
    assert found[1] == result


def test_a_result_that_waits_counts_too(variant: Variant, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    result = Result(variant, "ok")
    for status in ("failed", "ok"):
        entry = spool.begin()
        entry.keep(dataclasses.replace(result, status=status), Address("uri", "hw1", digest=status * 2))
        entry.release()
    assert resume.waiting(spool, "hw1", "okok") is not None
    assert resume.waiting(spool, "hw2", "okok") is None
    assert resume.waiting(spool, "hw1", "failedfailed") is None
