"""Where the results of a command go: by option, by environment, or into the run of `mlflow run`."""

from __future__ import annotations

import pytest

from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, lasting
from mlflow_compress.tracking.log import Log, experiment_asked

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
