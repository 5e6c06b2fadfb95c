"""The data of version 0.1: its runs, the results in its spool, and the models that it logged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from mlflow_compress.cli.bench import main as bench
from mlflow_compress.cli.report import main as report

MADE = Path(__file__).parent / "made_by_0_1"


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the test's own SQLite store."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(empty_store, tmp_path)}"


def test_its_runs_make_the_same_table(uri: str) -> None:
    client = MlflowClient(uri)
    experiment = client.create_experiment("old")
    for old_run in json.loads((MADE / "runs.json").read_text(encoding="utf-8")):
        run = client.create_run(experiment, old_run["start"], run_name=old_run["name"])
        client.log_batch(
            run.info.run_id,
            [Metric(key, value, old_run["end"], 0) for key, value in old_run["metrics"].items()],
            [Param(key, value) for key, value in old_run["params"].items()],
            [RunTag(key, value) for key, value in old_run["tags"].items()],
        )
        client.set_terminated(run.info.run_id, old_run["status"], old_run["end"])
    result = CliRunner().invoke(report, ["--tracking-uri", uri, "-e", "old"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout == (MADE / "table.md").read_text(encoding="utf-8")


def test_what_waits_in_its_spool_is_sent_and_its_model_predicts(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(MADE / "spool", tmp_path / "spool")
    (address,) = (tmp_path / "spool").glob("*/address.json")
    address.write_text(json.dumps({**json.loads(address.read_text()), "uri": uri}))
    monkeypatch.setenv("COMPRESS_SPOOL", str(tmp_path / "spool"))
    MlflowClient(uri).create_experiment("the store is there")
    result = CliRunner().invoke(bench, ["sync", "--tracking-uri", uri], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert not address.exists()

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("spooled")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["team"] == "delta"
    assert run.data.tags["mlflow.compress.logged"] == "complete"
    assert run.data.metrics["quality/accuracy"] == 0.98
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert tells_the_digit(model.model_uri, uri)


def test_a_model_that_it_logged_predicts(uri: str, tmp_path: Path) -> None:
    (saved,) = (MADE / "spool").glob("*/model")
    shutil.copytree(MADE / "logged_model", tmp_path / "logged")
    shutil.copytree(saved, tmp_path / "logged" / "data" / "model")
    assert tells_the_digit(str(tmp_path / "logged"), uri)


def tells_the_digit(model: str, uri: str) -> bool:
    """Return whether a logged model of digits predicts the same digit for its example as in version 0.1."""
    images = json.loads((MADE / "logged_model" / "input_example.json").read_text())
    mlflow.set_tracking_uri(uri)
    try:
        (digit,) = mlflow.pyfunc.load_model(model).predict(np.array(images, dtype=np.float32))
    finally:
        mlflow.set_tracking_uri("")
    return int(digit) == 2
