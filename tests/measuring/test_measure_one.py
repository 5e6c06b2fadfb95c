from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_compress.measuring.measure_one import measure_one
from mlflow_compress.measuring.one_process import Listener
from mlflow_compress.records import Result, Variant

VARIANT = Variant("m", "original", "t", "mlflow_model", "models:/m/1")


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_LOCK", str(tmp_path / "lock"))


def ignore(event: object) -> None:
    """Ignore an event."""


def test_only_the_workers_know_where_a_model_was_fetched_to(tmp_path: Path) -> None:
    measured: list[Variant] = []

    def run(variant: Variant, folder: Path, listener: Listener) -> Result:
        measured.append(variant)
        return Result(replace(variant, interleave=False), "ok")

    requested = replace(VARIANT, interleave=True)
    result = measure_one(requested, tmp_path, ignore, ignore, fetched=tmp_path / "model", run=run)
    assert measured == [replace(requested, weights=str(tmp_path / "model"))]
    assert result.variant == VARIANT  # with the change from measuring: not in turns


def test_a_model_that_was_not_fetched_keeps_its_weights(tmp_path: Path) -> None:
    requested = replace(VARIANT, source="org/model", weights="pretrained")
    result = measure_one(requested, tmp_path, ignore, ignore, run=lambda variant, *_: Result(variant, "ok"))
    assert result.variant == requested


def test_two_are_never_measured_at_once(tmp_path: Path) -> None:
    running, peak = 0, 0
    messages: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def run(variant: Variant, folder: Path, listener: Listener) -> Result:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        begun.set()
        go_on.wait(60)
        running -= 1
        return Result(variant, "ok")

    def measure() -> None:
        measure_one(VARIANT, tmp_path, ignore, tell, run=run)

    def tell(text: str) -> None:
        messages.append(text)
        go_on.set()

    threads = [threading.Thread(target=measure) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert peak == 1
    assert len(messages) == 1
    assert "waiting for" in messages[0]


def test_what_the_listener_raises_ends_it(tmp_path: Path) -> None:
    def refuse(event: object) -> None:
        raise ConnectionError("the server is gone")

    def run(variant: Variant, folder: Path, listener: Listener) -> Result:
        listener({"stage": "loading"})
        raise AssertionError

    with pytest.raises(ConnectionError, match="the server is gone"):
        measure_one(VARIANT, tmp_path, refuse, ignore, run=run)
    measure_one(VARIANT, tmp_path, ignore, ignore, run=lambda variant, *_: Result(variant, "ok"))  # the lock is free
