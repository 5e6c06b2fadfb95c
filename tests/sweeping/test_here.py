"""Sweeps on this machine, with a fake measurement that only records its arguments."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.model_trial import OF_MODEL
from mlflow_compress.planning.order import Queue
from mlflow_compress.records import Outcome, Result, Step, Variant
from mlflow_compress.sweeping import here
from mlflow_compress.sweeping.delivery import Delivery
from mlflow_compress.sweeping.progress import Progress
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, open_store
from mlflow_compress.tracking.log import Log
from mlflow_compress.tracking.models import FetchedModels
from mlflow_compress.tracking.spool import Spool

Sweep = Callable[..., list[Result]]


def variant(method: str = "original", **fields: Any) -> Variant:
    return Variant("m", method, "t", "python", "none.py", chain=(Step(method),), folder="/nowhere", **fields)


class Measuring:
    """A fake `isolate.run`."""

    def __init__(self) -> None:
        self.seen: list[Variant] = []

    def __call__(
        self, variant: Variant, folder: Path, listener: Any, ready: Callable[[], object], originals: object = None
    ) -> Result:
        self.seen.append(variant)
        listener({"stage": "timing on cpu"})
        ready()
        assert folder.is_dir()
        return Result(variant, "ok", samples={"cpu/x": [1.0]}, outcomes={"cpu": Outcome("ok")}, ended_s=3.0)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measuring:
    fake = Measuring()
    monkeypatch.setattr(isolate, "run", fake)
    monkeypatch.setenv("COMPRESS_LOCK", str(tmp_path / "lock"))
    return fake


@pytest.fixture
def sweep(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Sweep:
    def run(*variants: Variant, again: bool = False, stream: io.StringIO | None = None) -> list[Result]:
        log = lambda: Log(open_store(store.uri), {}, request.node.name, ["m"], False)  # noqa: E731
        delivery = Delivery(Spool(tmp_path / "spool"), log, lambda text: None)
        shown_results: list[Result] = []
        progress = Progress(stream or io.StringIO())
        results = here.sweep(Queue(variants), delivery, progress, shown_results.append, again)
        assert shown_results == results
        assert list((tmp_path / "spool").glob("*")) == []
        return results

    return run


def test_each_variant_has_one_result_and_is_logged(
    sweep: Sweep, measuring: Measuring, store: Store, request: pytest.FixtureRequest
) -> None:
    stream = io.StringIO()
    results = sweep(variant(), variant("fp16"), stream=stream)
    assert [(result.variant.method, result.status) for result in results] == [("original", "ok"), ("fp16", "ok")]
    assert len(list(reading.runs(store, {writing.experiment_id(store, request.node.name): ""}))) == 2
    assert "[1/2] m, original: timing on cpu" in stream.getvalue()
    assert "[2/2] m, fp16: ok, 3 s" in stream.getvalue()


def test_what_the_experiment_has_is_measured_only_when_asked_for(
    sweep: Sweep, measuring: Measuring, store: Store, request: pytest.FixtureRequest
) -> None:
    sweep(variant())
    assert [result.status for result in sweep(variant())] == ["ok"]
    assert len(measuring.seen) == 1
    sweep(variant(), again=True)
    assert len(measuring.seen) == 2
    assert len(list(reading.runs(store, {writing.experiment_id(store, request.node.name): ""}))) == 2


def test_what_this_machine_does_not_serve_is_skipped_and_never_loaded(sweep: Sweep, measuring: Measuring) -> None:
    (result,) = sweep(variant(requires={"min_ram_gb": 10**6}))
    assert (result.status, measuring.seen) == ("skipped", [])
    assert result.reason.startswith("min_ram_gb=1000000 is required")


def test_a_model_of_the_tracking_server_is_fetched_and_its_place_not_kept(
    sweep: Sweep, measuring: Measuring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[str] = []

    def fetch(models: FetchedModels, uri: str) -> Path:
        fetched.append(uri)
        return tmp_path / "fetched"

    monkeypatch.setattr(FetchedModels, "path", fetch)
    stream = io.StringIO()
    of_server = replace(variant(), family="mlflow_model", source="models:/m/1")
    (result,) = sweep(of_server, stream=stream)
    assert fetched == ["models:/m/1"]
    assert measuring.seen == [replace(of_server, weights=str(tmp_path / "fetched"))]
    assert result.variant == of_server
    assert "m, original: fetching" in stream.getvalue()


@pytest.mark.full
def test_a_server_that_refuses_ends_it_before_anything_is_measured(tmp_path: Path, measuring: Measuring) -> None:
    def refuse() -> Log:
        raise StoreError("no such server")

    delivery = Delivery(Spool(tmp_path / "spool"), refuse, lambda text: None)
    with pytest.raises(StoreError, match="no such server"):
        here.sweep(Queue([variant()]), delivery, Progress(io.StringIO()), lambda result: None, again=True)


def test_who_stops_it_finds_no_bar_on_the_line(
    sweep: Sweep, measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def stop(variant: Variant, folder: Path, listener: Any, **kwargs: object) -> Result:
        listener({"stage": "timing on cpu", "done": 3, "total": 50})
        raise KeyboardInterrupt

    monkeypatch.setattr(isolate, "run", stop)
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt):
        sweep(variant(), stream=stream)
    assert "3/50" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[2K")


@pytest.mark.parametrize(("statuses", "left"), [(["failed"], 3), (["ok", "failed"], 0)])
def test_what_fails_for_the_model_ends_its_variants_only_where_none_was_measured(
    statuses: list[str], left: int, sweep: Sweep, measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(variant: Variant, folder: Path, *args: Any, **kwargs: Any) -> Result:
        status = statuses[len(measuring.seen)] if len(measuring.seen) < len(statuses) else "ok"
        result = measuring(variant, folder, *args, **kwargs)
        return result if status == "ok" else replace(result, status="failed", facts={OF_MODEL: "loading"})

    monkeypatch.setattr(isolate, "run", run)
    of_one_model = [variant(method) for method in ("original", "fp16", "bf16", "int8_dynamic")]
    of_other_model = replace(of_one_model[0], model="other", source="other.py")
    results = sweep(*of_one_model, of_other_model)
    assert len(results) == 5 - left
    assert results[-1].variant == of_other_model
    assert [result.status for result in results[: len(statuses)]] == statuses
    assert {result.status for result in results[len(statuses) :]} == {"ok"}
