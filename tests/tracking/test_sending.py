"""A result is written once, whatever is already there; what a server refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Result
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.sending import send
from mlflow_compress.tracking.spool import Address, Spool
from mlflow_compress.tracking.sync import Sync

from .results_to_send import RESULT, keep, models, only, runs, shipment


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
    """A crash while the model is being uploaded."""

    def stop(*args: object, **kwargs: object) -> None:
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
    """A server that dies between starting a run and answering."""
    experiment = writing.experiment_id(store, address.experiment)
    for _ in range(2):
        writing.start(store, experiment, "small original", {"compress.result_id": "c" * 32})
    send(store, shipment(tmp_path, "c" * 32, dataclasses.replace(address, with_model=False)))
    assert only(runs(store, address)).lifecycle == "FINISHED"


def test_numbers_stay_when_the_model_is_refused(
    store: Store, spool: Spool, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
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
    """Also for a large record: a result without its samples is not complete."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise MlflowException("no space left on device")

    keep(spool, address)
    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_text", refuse)
        assert Sync(spool, messages.append).waiting(store) == 1
    assert "no space left" in messages[0]
    assert only(runs(store, address)).lifecycle == "FAILED"
    assert Sync(spool, messages.append).waiting(store) == 0
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
    messages: list[str] = []
    assert Sync(spool, messages.append).waiting(store) == 1
    assert "is deleted" in messages[0]


def test_records_are_logged_whole(store: Store, spool: Spool, address: Address) -> None:
    keep(spool, address)
    assert Sync(spool, print).waiting(store) == 0
    content = reading.artifact(store, only(runs(store, address)).run_id, "result.json")
    assert content is not None
    assert Result.from_json(json.loads(content)) == RESULT
    with pytest.raises(StoreError):
        reading.run(store, "no such run")


def test_the_first_result_takes_the_run_and_the_others_get_runs_below(
    store: Store, spool: Spool, address: Address
) -> None:
    """Two commands under one MLFLOW_RUN_ID, or in one run of `mlflow run`."""
    outer = writing.start(store, writing.experiment_id(store, address.experiment), "funny-shrew-12", {})
    ids: list[str] = []
    for method in ("original", "bf16", "fp16"):
        variant = dataclasses.replace(RESULT.variant, method=method)
        result = dataclasses.replace(RESULT, variant=variant, measurements={"size/params": float(len(ids))})
        ids.append(keep(spool, dataclasses.replace(address, run=outer), result))
        assert Sync(spool, print).waiting(store) == 0
    by_method = {run.tags["method"]: run for run in runs(store, address)}
    assert {method: run.metrics["size/params"] for method, run in by_method.items()} == {
        "original": 0.0,
        "bf16": 1.0,
        "fp16": 2.0,
    }
    assert by_method["original"].run_id == outer
    assert by_method["original"].name == "alpha: small original"
    assert [by_method[method].tags["mlflow.parentRunId"] for method in ("bf16", "fp16")] == [outer, outer]
    assert {run.tags["compress.result_id"] for run in by_method.values()} == set(ids)
    assert {run.lifecycle for run in by_method.values()} == {"FINISHED"}
    assert all(models(store, run) == ["READY"] for run in by_method.values())


def test_a_run_below_ends_while_the_run_above_goes_on(store: Store, tmp_path: Path, address: Address) -> None:
    outer = writing.start(store, writing.experiment_id(store, address.experiment), "outer", {})
    inside_run = dataclasses.replace(address, run=outer, with_model=False)
    for result_id in ("a" * 32, "b" * 32, "a" * 32):  # the first one is sent again
        send(store, shipment(tmp_path, result_id, inside_run), ending=False)
    assert {run.run_id == outer: run.lifecycle for run in runs(store, address)} == {True: "RUNNING", False: "FINISHED"}
    assert len(runs(store, address)) == 2


def test_a_run_that_took_a_result_of_version_0_1_keeps_it(store: Store, spool: Spool, address: Address) -> None:
    tags = {"compress.result_id": "0" * 32, "compress.logged": "complete", "compress.role": "variant"}
    outer = writing.start(store, writing.experiment_id(store, address.experiment), "outer", tags)
    keep(spool, dataclasses.replace(address, run=outer))
    assert Sync(spool, print).waiting(store) == 0
    by_id = {run.run_id: run for run in runs(store, address)}
    assert by_id.pop(outer).metrics == {}
    assert only(list(by_id.values())).metrics == RESULT.measurements


def test_of_two_that_take_a_run_at_once_one_has_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the run, and no result had taken it."""
    outer = writing.start(store, writing.experiment_id(store, "taken at once"), "outer", {})
    log_param = MlflowClient.log_param

    def be_slower(client: MlflowClient, run_id: str, key: str, value: str) -> None:
        log_param(client, run_id, key, "the other")
        log_param(client, run_id, key, value)

    monkeypatch.setattr(MlflowClient, "log_param", be_slower)
    assert not writing.take(store, outer, "one")
    monkeypatch.undo()
    assert writing.take(store, outer, "the other")
    with pytest.raises(StoreError):
        writing.take(store, "no such run", "one")


def test_an_artifact_folder_that_cannot_be_written_to(
    store: Store, spool: Spool, address: Address, tmp_path: Path
) -> None:
    """A file blocks the folder, even for root."""
    blocked = tmp_path / "way"
    blocked.write_text("")
    store.client.create_experiment(address.experiment, artifact_location=str(blocked / "artifacts"))
    keep(spool, address)
    messages: list[str] = []
    for _ in range(3):
        assert Sync(spool, messages.append).everything(store.uri) == 1
        run = only(runs(store, address))
        assert (run.lifecycle, run.metrics, run.tags["status"]) == ("FAILED", RESULT.measurements, "ok")
        assert "compress.logged" not in run.tags
        assert run.tags["compress.not_logged"].startswith(f"The artifact folder {blocked / 'artifacts'}/")
    assert "is not writable: " in messages[0]
    assert "Allow this user to write there" in messages[0]
    other_address = dataclasses.replace(address, experiment=f"{address.experiment} other")
    keep(spool, other_address)
    assert Sync(spool, messages.append).everything(store.uri) == 1
    assert only(runs(store, other_address)).lifecycle == "FINISHED"
    blocked.unlink()
    assert Sync(spool, messages.append).everything(store.uri) == 0
    run = only(runs(store, address))
    assert (run.lifecycle, run.tags["compress.logged"], run.metrics) == ("FINISHED", "complete", RESULT.measurements)
    assert "compress.not_logged" not in run.tags
    client = MlflowClient(store.uri)
    assert all(len(client.get_metric_history(run.run_id, name)) == 1 for name in RESULT.measurements)


def test_a_model_that_the_user_logged_to_the_run_is_left_alone(store: Store, spool: Spool, address: Address) -> None:
    """Also a model that is still being written; it is neither deleted nor treated as ours."""
    number = writing.experiment_id(store, address.experiment)
    outer = store.client.create_run(number, run_name="outer").info.run_id
    user_models = [store.client.create_logged_model(number, name="model", source_run_id=outer) for _ in range(2)]
    store.client.log_outputs(outer, [LoggedModelOutput(user_models[0].model_id, step=0)])
    store.client.finalize_logged_model(user_models[0].model_id, "READY")
    keep(spool, dataclasses.replace(address, run=outer))
    assert Sync(spool, print).waiting(store) == 0
    run = only(runs(store, address))
    assert (run.run_id, sorted(models(store, run))) == (outer, ["PENDING", "READY", "READY"])
    assert store.client.get_logged_model(user_models[0].model_id).metrics in (None, [])


def test_no_link_that_a_model_left_in_its_folder_is_logged(store: Store, tmp_path: Path, address: Address) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    with_link = shipment(tmp_path, "e" * 32, address)
    (with_link.entry.folder / "model" / "notes").symlink_to(secret)
    send(store, with_link)
    run = only(runs(store, address))
    assert (run.lifecycle, run.metrics) == ("FINISHED", RESULT.measurements)
    assert run.tags["compress.not_logged"].startswith("model: notes in ")
    assert "is a link to a file elsewhere" in run.tags["compress.not_logged"]
    assert models(store, run) == []
