"""A logged model shows its inputs, can be registered, and answers when MLflow serves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from benchmarks.servers import environment, free_port
from mlflow_compress import registry
from mlflow_compress.measuring import input_example
from mlflow_compress.measuring.input_example import Example
from mlflow_compress.networks import model_folder
from mlflow_compress.records import Result, Step, Variant
from mlflow_compress.tracking import models, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.models import _shown

FILE = """
import torch

def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))

def batch(size):
    return torch.rand(size, 2, 6)
"""


VARIANT = Variant("tiny", "int8_dynamic", "alpha", "python", "tiny.py", chain=(Step("int8_dynamic"),))


RESULT = Result(VARIANT, "ok", measurements={"cpu/latency_p50_ms": 1.25}, started_s=1.0, ended_s=2.0)


SECONDS = 240


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a variant's folder with a compressed model and its example, as the worker leaves it."""
    (tmp_path / "tiny.py").write_text(FILE)
    family = registry.build("families", "python")
    (method,) = model_folder.methods_of(VARIANT.chain)
    model = method.compress(family.load("tiny.py", "auto", tmp_path, 0), family)
    (tmp_path / "model").mkdir()
    model_folder.save(model, family, [method], VARIANT, tmp_path / "model")
    restored = model_folder.restore(tmp_path / "model")
    input_example.keep(restored.family, restored.model, tmp_path)
    return tmp_path


@pytest.fixture
def logged(store: Store, folder: Path) -> Iterator[tuple[Store, str, str]]:
    """Log it, and return the store, the run and the model's id."""
    run_id = writing.start(store, writing.experiment_id(store, "examples"), "tiny", {})
    model_id = models.write_model(store, run_id, folder / "model", ["mlflow-compress"], input_example.read(folder))
    models.link(store, run_id, model_id, RESULT)
    yield store, run_id, model_id
    mlflow.set_tracking_uri("")


def test_the_model_has_signature_example_and_numbers(logged: tuple[Store, str, str]) -> None:
    store, run_id, model_id = logged
    model = mlflow.pyfunc.load_model(f"models:/{model_id}")
    (spec,) = model.metadata.signature.inputs.inputs
    assert (spec.shape, spec.type) == ((-1, 2, 6), np.dtype("float32"))
    example = model.input_example
    assert model.predict(example) == model.predict(np.repeat(example, 2, axis=0))[:1]
    models.link(store, run_id, model_id, RESULT)
    numbers = MlflowClient(store.uri).get_logged_model(model_id).metrics or []
    assert [(metric.key, metric.value) for metric in numbers] == [("cpu/latency_p50_ms", 1.25)]


def test_logging_does_not_load_the_model(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_compress.pyfunc._load_pyfunc", lambda path: pytest.fail("it was loaded"))
    run_id = writing.start(store, writing.experiment_id(store, "examples"), "tiny", {})
    assert models.write_model(store, run_id, folder / "model", ["mlflow-compress"], input_example.read(folder))


def test_what_is_active_in_a_notebook_does_not_matter(store: Store, folder: Path) -> None:
    run_id = writing.start(store, writing.experiment_id(store, "examples"), "tiny", {})
    with mlflow.start_run(experiment_id=writing.experiment_id(store, "of the user's")) as active:
        model_id = models.write_model(store, run_id, folder / "model", ["mlflow-compress"])
    model = MlflowClient(store.uri).get_logged_model(model_id)
    assert (model.source_run_id, model.experiment_id) == (run_id, writing.experiment_id(store, "examples"))
    outputs = MlflowClient(store.uri).get_run(active.info.run_id).outputs
    assert not (outputs and outputs.model_outputs)


def test_it_is_registered_once(logged: tuple[Store, str, str]) -> None:
    store, _, model_id = logged
    for name in ("it's a `name` Ё", "other"):
        models.register(store, model_id, name, RESULT)
        models.register(store, model_id, name, RESULT)
        version = MlflowClient(store.uri).get_model_version(name, "1")
        assert version.source == f"models:/{model_id}"
        assert version.tags["method"] == "int8_dynamic"
        assert len(MlflowClient(store.uri).get_registered_model(name).latest_versions) == 1


def test_mlflow_serves_it(logged: tuple[Store, str, str], tmp_path: Path) -> None:
    store, _, model_id = logged
    models.register(store, model_id, "served", RESULT)
    port = free_port()
    command = ["models", "serve", "-m", "models:/served/1", "--env-manager", "local", "--port", str(port)]
    variables = environment(tmp_path, MLFLOW_TRACKING_URI=store.uri, OMP_NUM_THREADS="1")
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables["PATH"]])
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command, "--workers", "1"], env=variables, stdout=log, stderr=log,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            content = json.dumps({"inputs": np.zeros((2, 2, 6)).tolist()}).encode()
            answer = asked(f"http://127.0.0.1:{port}/invocations", content, process, tmp_path / "log")
        finally:
            os.killpg(process.pid, 9)
    expected = mlflow.pyfunc.load_model(f"models:/{model_id}").predict(np.zeros((2, 2, 6), dtype=np.float32))
    assert answer == {"predictions": expected}


def asked(address: str, content: bytes, process: subprocess.Popen[bytes], log: Path) -> Any:
    for _ in range(SECONDS * 5):
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise TimeoutError(log.read_text())


def test_texts_and_pictures_have_signatures_too() -> None:
    texts = _shown(Example(["a text"], outputs=["good"]))
    assert texts["signature"].inputs.input_names() == ["text"]
    assert list(texts["input_example"]["text"]) == ["a text"]
    picture = np.zeros((4, 4, 3), dtype=np.uint8).tolist()
    detected = {"boxes": [[1.0, 2.0, 3.0, 4.0]], "labels": ["cat"]}
    pictures = _shown(Example([picture], "uint8", (-1, -1, 3), [detected]))
    (spec,) = pictures["signature"].inputs.inputs
    assert spec.shape == (-1, -1, -1, 3)
    assert pictures["signature"].outputs.input_names() == ["boxes", "labels"]
    assert _shown(Example([picture], "uint8", (-1, -1, 3), [{"boxes": []}]))["signature"].outputs is None
