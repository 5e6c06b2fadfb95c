"""What waits in the spool comes to MLflow once; what a server refuses; runs of dead processes end."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Outcome, Result, Run, Step, Variant
from mlflow_compress.tracking import process_identity, reading, writing
from mlflow_compress.tracking.connection import Store, lasting
from mlflow_compress.tracking.sending import send
from mlflow_compress.tracking.spool import Address, Entry, Shipment, Spool
from mlflow_compress.tracking.sync import Sync

VARIANT = Variant("small", "original", "alpha", "python", "small.py", chain=(Step("original"),))
RESULT = Result(
    VARIANT,
    "ok",
    measurements={"cpu/latency_p50_ms": 1.25, "size/params": 7.0},
    samples={"cpu/latency_ms": [1.0, 1.25, 1.5]},
    outcomes={"cpu": Outcome("ok")},
    facts={"data_digest": "0" * 8, "data_source": "own", "data_name": "own"},
    started_s=1.0,
    ended_s=2.0,
)
NAME = "Команда 'x\" `y`"  # an experiment's, hostile to filters


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def address(store: Store, request: pytest.FixtureRequest) -> Address:
    return Address(lasting(store.uri), f"{NAME} {request.node.name}", {"limit": "auto"}, digest="d" * 64)


def keep(spool: Spool, address: Address, result: Result = RESULT) -> str:
    entry = spool.begin()
    (entry.folder / "model").mkdir()
    (entry.folder / "model" / "weights").write_bytes(b"w" * 1000)
    (entry.folder / "predictions.json").write_text("[]")
    Shipment(entry, result, address, print).keep()
    entry.release()
    return entry.id


def shipment(folder: Path, result_id: str, address: Address) -> Shipment:
    """Make what is not kept on disk, with an empty model."""
    (folder / result_id / "model").mkdir(parents=True, exist_ok=True)
    return Shipment(Entry(folder / result_id, FileLock(folder / "lock")), RESULT, address, print)


def runs(store: Store, address: Address) -> list[Run]:
    number = reading.experiments(store).get(address.experiment)
    return [] if number is None else reading.runs(store, {number: address.experiment})


def only(found: list[Run]) -> Run:
    (run,) = found
    return run


def models(store: Store, run: Run) -> list[str]:
    client = MlflowClient(store.uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run.run_id}'")
    return [str(each.status) for each in found]


def test_what_waits_is_sent_once(store: Store, spool: Spool, address: Address) -> None:
    result_id = keep(spool, address)
    told: list[str] = []
    assert Sync(spool, told.append).everything(store.uri) == 0
    run = only(runs(store, address))
    assert run.lifecycle == "FINISHED"
    assert run.metrics == RESULT.measurements
    assert run.tags["compress.result_id"] == result_id
    assert run.tags["compress.logged"] == "complete"
    assert run.tags["compress.variant_digest"] == "d" * 64
    assert "compress.not_logged" not in run.tags
    assert models(store, run) == ["READY"]
    assert list(spool.folder.iterdir()) == []
    assert any("sent small, original" in text for text in told)
    assert Sync(spool, told.append).everything(store.uri) == 0
    assert len(runs(store, address)) == 1


def test_a_dry_run_changes_nothing(store: Store, spool: Spool, address: Address) -> None:
    keep(spool, address)
    told: list[str] = []
    assert Sync(spool, told.append, dry_run=True).everything(store.uri) == 1
    assert runs(store, address) == []
    assert any(text.startswith("would send small") for text in told)
    assert len(list(spool.entries())) == 1


def test_delivering_twice_changes_nothing(store: Store, tmp_path: Path, address: Address) -> None:
    for _ in range(2):
        send(store, shipment(tmp_path, "a" * 32, address))
    run = only(runs(store, address))
    client = MlflowClient(store.uri)
    assert all(len(client.get_metric_history(run.run_id, name)) == 1 for name in RESULT.measurements)
    assert models(store, run) == ["READY"]


def test_what_was_left_in_the_middle_is_completed(
    store: Store, tmp_path: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash while the model was being uploaded."""

    def stop(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", stop)
        with pytest.raises(KeyboardInterrupt):
            send(store, shipment(tmp_path, "b" * 32, address))
    assert models(store, only(runs(store, address))) == ["PENDING"]
    send(store, shipment(tmp_path, "b" * 32, address))
    run = only(runs(store, address))
    client = MlflowClient(store.uri)
    assert run.lifecycle == "FINISHED"
    assert models(store, run) == ["READY"]
    assert all(len(client.get_metric_history(run.run_id, name)) == 1 for name in RESULT.measurements)
    inputs = client.get_run(run.run_id).inputs
    assert inputs is not None
    assert len(inputs.dataset_inputs) == 1


def test_of_two_runs_of_one_result_one_stays(store: Store, tmp_path: Path, address: Address) -> None:
    """As after a server that died between starting a run and answering."""
    experiment = writing.experiment_id(store, address.experiment)
    for _ in range(2):
        writing.start(store, experiment, "small original", {"compress.result_id": "c" * 32})
    send(store, shipment(tmp_path, "c" * 32, dataclasses.replace(address, with_model=False)))
    assert only(runs(store, address)).lifecycle == "FINISHED"


def test_numbers_stay_when_the_model_is_refused(
    store: Store, spool: Spool, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise MlflowException("413 Request Entity Too Large")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", refuse)
    keep(spool, address)
    assert Sync(spool, print).waiting(store) == 0
    run = only(runs(store, address))
    assert (run.lifecycle, run.metrics) == ("FINISHED", RESULT.measurements)
    assert "413 Request Entity Too Large" in run.tags["compress.not_logged"]
    assert run.tags["compress.not_logged"].startswith("model: ")
    assert models(store, run) == ["FAILED"]


def test_numbers_that_are_refused_wait(
    store: Store, spool: Spool, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a large one of the records is: without the samples a result is none."""

    def refuse(*given: object, **named: object) -> None:
        raise MlflowException("no space left on device")

    keep(spool, address)
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_text", refuse)
        assert Sync(spool, told.append).waiting(store) == 1
    assert "no space left" in told[0]
    assert only(runs(store, address)).lifecycle == "FAILED"
    assert Sync(spool, told.append).waiting(store) == 0
    assert only(runs(store, address)).lifecycle == "FINISHED"


def test_a_server_that_is_gone_keeps_all_waiting(spool: Spool, address: Address, store: Store) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
    keep(spool, dataclasses.replace(address, uri=uri))
    keep(spool, address)
    told: list[str] = []
    assert Sync(spool, told.append).everything(store.uri) == 1
    assert len(list(spool.entries())) == 1
    assert any("1 results wait" in text and uri in text for text in told)
    assert len(runs(store, address)) == 1


def test_what_cannot_be_read_is_told_and_left(spool: Spool, address: Address, store: Store) -> None:
    result_id = keep(spool, address)
    (spool.folder / result_id / "result.json").write_text('{"variant": 1}')
    told: list[str] = []
    assert Sync(spool, told.append).everything(store.uri) == 1
    assert any("can't be read" in text for text in told)
    assert (spool.folder / result_id / "model" / "weights").is_file()


def test_no_secret_is_written(spool: Spool, address: Address, store: Store) -> None:
    assert lasting("http://user:s3cret@host:5000/x?token=s3cret") == "http://host:5000/x"
    assert lasting("postgresql://user:s3cret@host/db") == "postgresql://host/db"


def test_a_relative_store_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lasting("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert lasting("mlruns") == f"{tmp_path}/mlruns"
    assert lasting("databricks") == "databricks"


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
    told: list[str] = []
    Sync(spool, told.append).dead(store, {number: address.experiment})
    found = {name: reading.run(store, run_id) for name, run_id in ids.items()}
    assert {name: run.lifecycle for name, run in found.items()} == {
        "cut off": "KILLED",
        "sweep": "KILLED",
        "complete": "FINISHED",
        "failed": "FAILED",
        "alive": "RUNNING",
        "not ours": "RUNNING",
    }
    assert "died" in found["cut off"].tags["compress.reason"]
    assert found["cut off"].tags["status"] == "failed"
    assert len(told) == 4


def test_a_run_whose_result_waits_is_left_to_it(store: Store, spool: Spool, address: Address) -> None:
    number = writing.experiment_id(store, address.experiment)
    result_id = keep(spool, address)
    writing.start(store, number, "half", {"compress.process": dead(), "compress.result_id": result_id})
    Sync(spool, print).dead(store, {number: address.experiment})
    assert only(runs(store, address)).lifecycle == "RUNNING"
    assert Sync(spool, print).everything(store.uri) == 0
    assert only(runs(store, address)).lifecycle == "FINISHED"


def test_the_run_of_mlflow_run_takes_its_result_later(store: Store, spool: Spool, address: Address) -> None:
    outer = writing.start(store, writing.experiment_id(store, address.experiment), "outer", {})
    writing.end(store, outer, succeeded=False)  # as `mlflow run` does when the command could not send
    keep(spool, dataclasses.replace(address, run=outer))
    assert Sync(spool, print).waiting(store) == 0
    run = only(runs(store, address))
    assert (run.run_id, run.lifecycle, run.metrics) == (outer, "FINISHED", RESULT.measurements)


def test_a_run_that_was_deleted_meanwhile_is_replaced(store: Store, spool: Spool, address: Address) -> None:
    outer = writing.start(store, writing.experiment_id(store, address.experiment), "outer", {})
    MlflowClient(store.uri).delete_run(outer)
    keep(spool, dataclasses.replace(address, run=outer))
    assert Sync(spool, print).waiting(store) == 0
    assert only(runs(store, address)).metrics == RESULT.measurements


def test_a_deleted_experiment_keeps_its_results_waiting(store: Store, spool: Spool, address: Address) -> None:
    MlflowClient(store.uri).delete_experiment(writing.experiment_id(store, address.experiment))
    keep(spool, address)
    told: list[str] = []
    assert Sync(spool, told.append).waiting(store) == 1
    assert "is deleted" in told[0]


def test_records_are_logged_whole(store: Store, spool: Spool, address: Address) -> None:
    keep(spool, address)
    assert Sync(spool, print).waiting(store) == 0
    kept = reading.artifact(store, only(runs(store, address)).run_id, "result.json")
    assert kept is not None
    assert Result.from_json(json.loads(kept)) == RESULT
    with pytest.raises(StoreError):
        reading.run(store, "no such run")
