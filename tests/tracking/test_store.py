from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Caution, Outcome, Result, Run, Step, Variant
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, open_store, without_secrets
from mlflow_compress.tracking.writing import tags_of

VARIANT = Variant("yolo", "int8", "alpha", "yolo", "yolo11n.pt", chain=(Step("int8_dynamic"),), devices=("cpu", "cuda"))
RESULT = Result(
    VARIANT,
    "ok",
    reason="gpu: CPU only",
    measurements={"cpu/latency_p50_ms": 1.25, "size/params": 7.0, "cpu/nan": float("nan"), "cpu/inf": float("inf")},
    samples={"cpu/latency_ms": [1.0, 1.25, 1.5]},
    cautions=(Caution("busy_machine", "busy", "wait"), Caution("unstable", "not stable")),
    environment={"cpu_model": "Xeon", "threads": "2"},
    outcomes={"cpu": Outcome("ok"), "gpu": Outcome("skipped", "CPU only")},
    facts={"weights": "random"},
    started_s=1.0,
    ended_s=2.0,
)


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")


def log(store: Store, experiment: str, result: Result = RESULT) -> str:
    run_id = writing.start(store, writing.experiment_id(store, experiment), "yolo int8", {"team": "alpha"})
    writing.write_result(
        store, run_id, result, {"model": "yolo", "limit": "5"}, "a note", {"plots/latency.png": b"PNG"}
    )
    writing.end(store, run_id, succeeded=True)
    return run_id


def query(store: Store, names: list[str], where: str = "") -> list[Run]:
    known = reading.experiments(store)
    return reading.runs(store, {known[name]: name for name in names}, where)


def only(runs: list[Run]) -> Run:
    (run,) = runs
    return run


def test_what_is_logged_is_read_back(store: Store) -> None:
    run_id = log(store, "round trip")
    run = only(query(store, ["round trip"]))
    assert (run.run_id, run.experiment, run.name, run.lifecycle) == (run_id, "round trip", "yolo int8", "FINISHED")
    assert run.started_ms > 0
    assert run.params == {"model": "yolo", "limit": "5"}
    assert run.tags.items() >= tags_of(RESULT).items()
    assert run.tags["compress.outcome.gpu"] == "skipped"
    assert run.tags["compress.reason.gpu"] == "CPU only"
    assert run.tags["compress.cautions"] == "busy_machine,unstable"
    assert run.tags["compress.env.cpu_model"] == "Xeon"
    assert run.tags["compress.weights"] == "random"
    assert run.tags["mlflow.note.content"] == "a note"


def test_what_is_no_number_is_never_logged(store: Store) -> None:
    log(store, "numbers")
    assert only(query(store, ["numbers"])).metrics == {"cpu/latency_p50_ms": 1.25, "size/params": 7.0}


def test_the_records_and_files_are_artifacts(store: Store) -> None:
    run_id = log(store, "artifacts")
    client = MlflowClient(store.uri)
    saved = json.loads(Path(client.download_artifacts(run_id, "result.json")).read_text())
    assert Result.from_json(saved).samples == RESULT.samples
    variant = json.loads(Path(client.download_artifacts(run_id, "variant.json")).read_text())
    assert Variant.from_json(variant) == VARIANT
    assert Path(client.download_artifacts(run_id, "plots/latency.png")).read_bytes() == b"PNG"


def test_params_that_are_there_already_are_left_alone(store: Store) -> None:
    run_id = writing.start(store, writing.experiment_id(store, "params"), "run", {})
    MlflowClient(store.uri).log_param(run_id, "model", "as mlflow run gave it")
    writing.write_result(store, run_id, RESULT, {"model": "another", "limit": "5"}, "", {})
    assert only(query(store, ["params"])).params == {"model": "as mlflow run gave it", "limit": "5"}


def test_a_long_tag_is_cut_visibly(store: Store) -> None:
    result = Result(VARIANT, "failed", reason="x" * 20_000)
    log(store, "long", result)
    reason = only(query(store, ["long"])).tags["compress.reason"]
    assert reason.endswith("x…")
    assert len(reason) == 5000


def test_more_than_one_call_takes(store: Store) -> None:
    many = {f"cpu/m{at}": float(at) for at in range(1_100)}
    environment = {f"lib{at}": "1" for at in range(120)}
    log(store, "many", Result(VARIANT, "ok", measurements=many, environment=environment))
    run = only(query(store, ["many"]))
    assert run.metrics == many
    assert run.tags.items() >= {f"compress.env.lib{at}": "1" for at in range(120)}.items()


def test_newest_first_and_filtered(store: Store) -> None:
    experiment = writing.experiment_id(store, "order")
    ids = [
        writing.start(store, experiment, str(at), {"compress.role": role}, start_ms=at)
        for at, role in [(2, "variant"), (3, "sweep"), (1, "variant")]
    ]
    assert [run.run_id for run in query(store, ["order"])] == [ids[1], ids[0], ids[2]]
    variants = query(store, ["order"], "tags.`compress.role` = 'variant'")
    assert [run.run_id for run in variants] == [ids[0], ids[2]]


def test_several_experiments(store: Store) -> None:
    for name in ("one", "two"):
        writing.start(store, writing.experiment_id(store, name), "run", {})
    assert {run.experiment for run in query(store, ["one", "two"])} == {"one", "two"}


def test_a_deleted_experiment_is_not_written_to(store: Store) -> None:
    MlflowClient(store.uri).delete_experiment(writing.experiment_id(store, "gone"))
    with pytest.raises(StoreError, match="is deleted"):
        writing.experiment_id(store, "gone")


def test_a_refusal_is_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError, match="refused"):
        writing.end(store, "no such run", succeeded=True)


def test_a_store_of_another_mlflow_says_what_to_do(store: Store, tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    shutil.copy(store.uri.removeprefix("sqlite:///"), newer)
    with contextlib.closing(sqlite3.connect(newer)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        database.commit()
    with pytest.raises(StoreError, match="another MLflow than"):
        open_store(f"sqlite:///{newer}", create=False)
    mlflow.set_tracking_uri("")


def test_a_reader_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no tracking store"):
        open_store(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_that_is_gone_is_told_at_once(closed_port: int) -> None:
    with pytest.raises(StoreError, match=r"can't be reached: .*refused"):
        open_store(f"http://127.0.0.1:{closed_port}")


def test_an_address_that_is_none() -> None:
    with pytest.raises(StoreError, match="can't be reached"):
        open_store("http://[")


@pytest.mark.parametrize(
    "uri",
    [
        "http://someone:s3cret@127.0.0.1:{port}",
        "http://someone:s3/cret@127.0.0.1:{port}",
        "nothing://someone:s3cret@host/path?token=s3cret",
        "databricks://someone:s3cret@host",
    ],
)
def test_no_error_repeats_a_secret(uri: str, closed_port: int) -> None:
    with pytest.raises(StoreError) as told:
        open_store(uri.format(port=closed_port))
    assert not re.search("s3/?cret", str(told.value))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:pass@host:5000/path?token=x#y", "http://host:5000/path"),
        ("postgresql://user@host/db", "postgresql://host/db"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("mlruns", "mlruns"),
        ("http://[", "http://["),
    ],
)
def test_without_secrets(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown
