"""Results in the spool reach MLflow once; what a server refuses; runs of dead processes are ended."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import pytest

from mlflow_compress.tracking import process_identity, reading, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Address, Spool
from mlflow_compress.tracking.sync import Sync

from .results_to_send import RESULT, keep, models, only, runs


def test_what_waits_is_sent_once(store: Store, spool: Spool, address: Address) -> None:
    result_id = keep(spool, address)
    messages: list[str] = []
    assert Sync(spool, messages.append).everything(store.uri) == 0
    run = only(runs(store, address))
    assert run.lifecycle == "FINISHED"
    assert run.metrics == RESULT.measurements
    assert run.tags["compress.result_id"] == result_id
    assert run.tags["compress.logged"] == "complete"
    assert run.tags["compress.variant_digest"] == "d" * 64
    assert "compress.not_logged" not in run.tags
    assert models(store, run) == ["READY"]
    assert list(spool.folder.iterdir()) == []
    assert any("sent small, original" in text for text in messages)
    assert Sync(spool, messages.append).everything(store.uri) == 0
    assert len(runs(store, address)) == 1


def test_a_dry_run_changes_nothing(store: Store, spool: Spool, address: Address) -> None:
    keep(spool, address)
    messages: list[str] = []
    assert Sync(spool, messages.append, dry_run=True).everything(store.uri) == 1
    assert runs(store, address) == []
    assert any(text.startswith("would send small") for text in messages)
    assert len(list(spool.entries())) == 1


def test_a_server_that_is_gone_keeps_all_waiting(spool: Spool, address: Address, store: Store) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
    keep(spool, dataclasses.replace(address, uri=uri))
    keep(spool, address)
    messages: list[str] = []
    assert Sync(spool, messages.append).everything(store.uri) == 1
    assert len(list(spool.entries())) == 1
    assert any("results waiting: 1" in text and uri in text for text in messages)
    assert len(runs(store, address)) == 1


def test_an_unreadable_entry_is_reported_and_left(spool: Spool, address: Address, store: Store) -> None:
    result_id = keep(spool, address)
    (spool.folder / result_id / "result.json").write_text('{"variant": 1}')
    messages: list[str] = []
    assert Sync(spool, messages.append).everything(store.uri) == 1
    assert any("can't be read" in text for text in messages)
    assert (spool.folder / result_id / "model" / "weights").is_file()


def dead() -> str:
    machine, _, namespace, pid, started = process_identity.mine().split(":")
    return ":".join((machine, "another-boot", namespace, pid, started))


def test_the_runs_of_dead_processes_end(store: Store, spool: Spool, address: Address) -> None:
    number = writing.experiment_id(store, address.experiment)
    ids = {
        name: writing.start(store, number, name, tags)
        for name, tags in {
            "cut off": {"compress.process": dead()},
            "sweep": {"compress.process": dead(), "compress.role": "sweep"},
            "complete": {"compress.process": dead(), "compress.logged": "complete", "status": "ok"},
            "failed": {"compress.process": dead(), "compress.logged": "complete", "status": "failed"},
            "alive": {"compress.process": process_identity.mine()},
            "not ours": {},
        }.items()
    }
    messages: list[str] = []
    Sync(spool, messages.append).dead(store, {number: address.experiment})
    ended = {name: reading.run(store, run_id) for name, run_id in ids.items()}
    assert {name: run.lifecycle for name, run in ended.items()} == {
        "cut off": "KILLED",
        "sweep": "KILLED",
        "complete": "FINISHED",
        "failed": "FAILED",
        "alive": "RUNNING",
        "not ours": "RUNNING",
    }
    assert "died" in ended["cut off"].tags["compress.reason"]
    assert ended["cut off"].tags["status"] == "failed"
    assert len(messages) == 4


def test_a_run_whose_result_waits_is_left_to_it(store: Store, spool: Spool, address: Address) -> None:
    number = writing.experiment_id(store, address.experiment)
    result_id = keep(spool, address)
    writing.start(store, number, "half", {"compress.process": dead(), "compress.result_id": result_id})
    Sync(spool, print).dead(store, {number: address.experiment})
    assert only(runs(store, address)).lifecycle == "RUNNING"
    assert Sync(spool, print).everything(store.uri) == 0
    assert only(runs(store, address)).lifecycle == "FINISHED"


def test_what_another_process_sends_meanwhile_did_not_die(
    store: Store, spool: Spool, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read that the run is running, and looks for its result when the other process has sent it."""
    number = writing.experiment_id(store, address.experiment)
    result_id = keep(spool, address)
    writing.start(store, number, "half", {"compress.process": dead(), "compress.result_id": result_id})
    messages: list[str] = []
    read_runs = reading.runs

    def read_and_wait(*args: Any) -> Any:
        run_read = read_runs(*args)
        if args[2:] == ("attributes.status = 'RUNNING'",):
            monkeypatch.undo()
            assert Sync(Spool(spool.folder), print).everything(store.uri) == 0
        return run_read

    monkeypatch.setattr(reading, "runs", read_and_wait)
    Sync(spool, messages.append).dead(store, {number: address.experiment})
    run = only(runs(store, address))
    assert (run.lifecycle, run.tags["status"], "compress.reason" in run.tags) == ("FINISHED", "ok", False)
    assert messages == []


def test_a_run_that_cannot_be_ended_leaves_the_others_to_end(
    store: Store, spool: Spool, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = writing.experiment_id(store, address.experiment)
    ids = [writing.start(store, number, name, {"compress.process": dead()}) for name in ("first", "second")]
    read_runs = reading.runs

    def read_and_wait(*args: Any) -> Any:
        run_read = read_runs(*args)
        store.client.delete_run(ids[1])
        return run_read

    monkeypatch.setattr(reading, "runs", read_and_wait)
    messages: list[str] = []
    Sync(spool, messages.append).dead(store, {number: address.experiment})
    assert reading.run(store, ids[0]).lifecycle == "KILLED"
    assert any("not ended: run second" in text for text in messages)


def test_what_was_said_to_have_died_is_ok_when_its_result_comes(store: Store, spool: Spool, address: Address) -> None:
    number = writing.experiment_id(store, address.experiment)
    result_id = keep(spool, address)
    writing.start(store, number, "half", {"compress.process": dead(), "compress.result_id": result_id})
    Sync(Spool(spool.folder.with_name("another")), print).dead(store, {number: address.experiment})
    assert "died" in only(runs(store, address)).tags["compress.reason"]
    assert Sync(spool, print).everything(store.uri) == 0
    run = only(runs(store, address))
    assert (run.lifecycle, run.tags["status"], "compress.reason" in run.tags) == ("FINISHED", "ok", False)
