from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import ExecutionException
from mlflow.projects.backend import loader

from mlflow_compress.plugin.backend import RayBackend
from mlflow_compress.tracking.connection import Store

PROJECT = """
name: p
entry_points:
  sweep:
    parameters:
      model: {type: string}
    command: "python write.py {model}"
"""
WRITE = "import json, sys; json.dump(sys.argv[1:], open('words.json', 'w')); sys.exit(sys.argv[1] == 'bad')"


@pytest.mark.parametrize("model", ["good", "bad"])
def test_a_sweep_goes_to_the_cluster_and_its_end_is_the_runs(store: Store, tmp_path: Path, model: str) -> None:
    (tmp_path / "MLproject").write_text(PROJECT)
    (tmp_path / "write.py").write_text(WRITE)
    mlflow.set_tracking_uri(store.uri)
    run_project: Any = mlflow.projects.run
    submitted = run_project(
        str(tmp_path),
        "sweep",
        parameters={"model": model},
        experiment_name=f"backend {model}",
        backend="compress-ray",
        backend_config={"address": "10.0.0.1:6379"},
        env_manager="local",
        run_name="mine",
        synchronous=False,
    )
    assert submitted.wait() == (model == "good")
    run = mlflow.MlflowClient(store.uri).get_run(submitted.run_id)
    assert run.info.status == ("FINISHED" if model == "good" else "FAILED")
    assert run.info.run_name == "mine"
    assert run.data.tags["mlflow.project.backend"] == "compress-ray"
    words = json.loads((tmp_path / "words.json").read_text())
    assert words[0] == model
    assert dict(zip(words[1::2], words[2::2], strict=True)) == {"--on": "ray", "--address": "10.0.0.1:6379"}


@pytest.mark.parametrize(
    ("entry", "params", "config", "message"),
    [
        ("main", {}, {}, "not main"),
        ("sweep", {}, {"adress": "x"}, "Did you mean 'address'"),
        ("sweep", {}, {"address": 3}, "must be text"),
        ("sweep", {"on": "here"}, {}, "-P on=here"),
    ],
)
def test_what_makes_no_sense_is_refused(entry: str, params: Any, config: Any, message: str) -> None:
    with pytest.raises(ExecutionException, match=message):
        RayBackend().run("p", entry, params, None, {"SYNCHRONOUS": True, **config}, "", "0")


def test_mlflow_finds_it() -> None:
    load: Any = loader.load_backend
    assert isinstance(load("compress-ray"), RayBackend)
