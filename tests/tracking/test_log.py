"""The destination of a command's results: by option, by environment, or the run of `mlflow run`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import process_identity, reading, writing
from mlflow_compress.tracking.connection import Store, lasting
from mlflow_compress.tracking.log import Log, experiment_asked

from .results_to_send import RESULT

_NAMES = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "COMPRESS_EXPERIMENT", "MLFLOW_RUN_ID")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)


def test_an_option_comes_before_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Log(store, {}, None, ["m"], with_model=False).experiment == "Default"
    monkeypatch.setenv("COMPRESS_EXPERIMENT", "log of a team")
    assert Log(store, {}, None, ["m"], with_model=False).experiment == "log of a team"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "log of MLflow")
    assert Log(store, {}, None, ["m"], with_model=False).experiment == "log of MLflow"
    assert Log(store, {}, "log asked for", ["m"], with_model=False).experiment == "log asked for"


def test_an_experiment_that_is_still_to_be_made_has_no_id(store: Store) -> None:
    assert experiment_asked(store, "log of nobody") == ("", "log of nobody")
    assert "log of nobody" not in reading.experiments(store)
    number = writing.experiment_id(store, "log of somebody")
    assert experiment_asked(store, "log of somebody") == (number, "log of somebody")


def test_a_single_result_goes_into_the_run_of_mlflow_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = writing.start(store, writing.experiment_id(store, "log of a project"), "funny-shrew-12", {})
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    address = Log(store, {"limit": "5"}, None, [], with_model=True, register="name").address("digest")
    assert (address.uri, address.experiment) == (lasting(store.uri), "log of a project")
    assert (address.run, address.parent, address.digest) == (outer, "", "digest")
    assert (address.with_model, address.register, address.asked) == (True, "name", {"limit": "5"})


def test_the_results_of_a_sweep_go_into_runs_below_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = writing.start(store, writing.experiment_id(store, "log of a project"), "funny-shrew-12", {})
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    address = Log(store, {}, None, ["yolo", "vit"], with_model=False).address("digest")
    assert (address.run, address.parent) == ("", outer)
    run = reading.run(store, outer)
    assert (run.name, run.tags["compress.role"]) == ("sweep of yolo, vit", "sweep")


def test_a_sweep_leaves_the_run_to_the_result_that_took_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = writing.start(store, writing.experiment_id(store, "log of a project"), "funny-shrew-12", {})
    assert writing.take(store, outer, "a result")
    writing.tag(store, outer, {"compress.role": "variant", "mlflow.note.content": "of the result"})
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    log = Log(store, {}, None, ["yolo", "vit"], with_model=False)
    assert log.address("digest").parent == outer
    log.close([RESULT])
    run = reading.run(store, outer)
    assert (run.name, run.tags["compress.role"]) == ("funny-shrew-12", "variant")
    assert run.tags["mlflow.note.content"] == "of the result"


def test_two_sweeps_in_one_run_both_describe_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = writing.start(store, writing.experiment_id(store, "log of a project"), "funny-shrew-12", {})
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    for methods in (["original"], ["original", "bf16"]):
        of_methods = [replace(RESULT, variant=replace(RESULT.variant, method=method)) for method in methods]
        Log(store, {}, None, ["small"], with_model=False).close(of_methods)
    assert not writing.take(store, outer, "a result")
    note = reading.run(store, outer).tags["mlflow.note.content"]
    assert [note.count(f"## small, {method}") for method in ("original", "bf16")] == [1, 1]


def test_who_logs_to_a_run_is_not_replaced_while_it_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    own_process = process_identity.mine()
    dead = own_process.rpartition(":")[0] + ":0"
    tags = {"compress.process": "another machine:1:2:3:4"}
    outer = writing.start(store, writing.experiment_id(store, "log of a project"), "outer", tags)
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    for tagged, expected in ((tags["compress.process"], tags["compress.process"]), (dead, own_process)):
        writing.tag(store, outer, {"compress.process": tagged})
        Log(store, {}, None, [], with_model=False)
        assert reading.run(store, outer).tags["compress.process"] == expected


def test_a_missing_run_is_reported_before_anything_is_measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted = writing.start(store, writing.experiment_id(store, "log of a project"), "outer", {})
    store.client.delete_run(deleted)
    for run_id in (deleted, "0" * 32, "no id; at all"):
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        with pytest.raises(StoreError, match=r"MLFLOW_RUN_ID.*Nothing was measured"):
            Log(store, {}, None, [], with_model=False)
