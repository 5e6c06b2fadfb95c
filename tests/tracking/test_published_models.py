"""`compress-bench export` of a run: from a local store, and from a real MLflow server."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny import TINY
from transformers import AutoModelForCausalLM

from benchmarks.servers import TrackingServer
from mlflow_compress.cli import bench
from mlflow_compress.errors import StoreError
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.tracking import models, writing
from mlflow_compress.tracking.connection import Store, open_store
from mlflow_compress.tracking.published_models import export

IDS = torch.arange(5, 13)[None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny language model as the worker saves it."""
    folder = tmp_path_factory.mktemp("saved")
    variant = Variant("tiny", "bf16", "t", "causal_lm", "tiny", "random", chain=parse_chain("bf16"),
                      options=TINY["causal_lm"])  # fmt: skip
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return folder / worker.MODEL_FOLDER


def logged(store: Store, saved: Path) -> str:
    """Log it as a run does, and return the run's id."""
    run_id = writing.start(store, writing.experiment_id(store, "exported"), "tiny bf16", {})
    assert models.write_model(store, run_id, saved, ["mlflow-compress"])
    return run_id


def require_same(to: Path, saved: Path) -> None:
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(to, dtype="auto")(input_ids=IDS).logits
        expected = model_folder.restore(saved).model.module(input_ids=IDS).logits
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, expected)


def test_the_command_exports_what_a_run_logged(store: Store, saved: Path, tmp_path: Path) -> None:
    run_id, to = logged(store, saved), tmp_path / "new" / "to"
    result = CliRunner().invoke(bench.main, ["export", run_id, "--to", str(to), "--tracking-uri", store.uri])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 3
    assert f"run {run_id} (tiny bf16)" in lines[0]
    assert f'AutoModelForCausalLM.from_pretrained("{to}", dtype="auto")' in lines[1]
    assert "pip install transformers" in lines[1]
    require_same(to, saved)
    repeated = CliRunner().invoke(bench.main, ["export", run_id, "--to", str(to), "--tracking-uri", store.uri])
    assert repeated.exit_code != 0


def test_a_run_without_a_model_is_reported(store: Store, tmp_path: Path) -> None:
    run_id = writing.start(store, writing.experiment_id(store, "exported"), "empty", {})
    with pytest.raises(StoreError, match="has no model of mlflow-compress"):
        export(run_id, tmp_path / "to", lambda: store)
    with pytest.raises(StoreError):
        export("0" * 32, tmp_path / "to", lambda: store)
    assert not (tmp_path / "to").exists()


def test_a_model_is_fetched_from_a_server(
    saved: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = TrackingServer(tmp_path / "server", f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    server.start()
    try:
        store = open_store(server.uri)
        run_id, to = logged(store, saved), tmp_path / "to"
        assert len(export(run_id, to, lambda: store)) == 3
    finally:
        server.kill()
    require_same(to, saved)
