from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Caution, Outcome, Result, Run, Step, Variant
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store
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


def log(store: Store, experiment: str, result: Result = RESULT) -> str:
    run_id = writing.start(store, writing.experiment_id(store, experiment), "yolo int8", {"team": "alpha"})
    writing.write_result(
        store, run_id, result, {"model": "yolo", "limit": "5"}, "a note", {"plots/latency.png": b"PNG"}
    )
    writing.end(store, run_id, succeeded=True)
    return run_id


def query(store: Store, names: list[str], where: str = "") -> list[Run]:
    ids = reading.experiments(store)
    return reading.runs(store, {ids[name]: name for name in names}, where)


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
    numbers = {f"cpu/m{index}": float(index) for index in range(1_100)}
    environment = {f"lib{index}": "1" for index in range(120)}
    log(store, "many", Result(VARIANT, "ok", measurements=numbers, environment=environment))
    run = only(query(store, ["many"]))
    assert run.metrics == numbers
    assert run.tags.items() >= {f"compress.env.lib{index}": "1" for index in range(120)}.items()


def test_a_deleted_experiment_is_not_written_to(store: Store) -> None:
    MlflowClient(store.uri).delete_experiment(writing.experiment_id(store, "gone"))
    with pytest.raises(StoreError, match="is deleted"):
        writing.experiment_id(store, "gone")


def test_a_refusal_is_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError, match="refused"):
        writing.end(store, "no such run", succeeded=True)


def test_two_comparisons_at_once_are_one_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have searched, and found no run."""
    number = writing.experiment_id(store, "compared at once")
    start, other_ids = writing.start, []

    def be_slower(*args: object) -> str:
        monkeypatch.undo()
        other_ids.append(writing.write_comparison(store, number, {"comparison.md": b"theirs"}, "theirs"))
        return start(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "start", be_slower)
    own = writing.write_comparison(store, number, {"comparison.md": b"own"}, "own")
    (run,) = store.client.search_runs([number])
    assert other_ids == [own] == [run.info.run_id]
    assert (run.info.status, run.data.tags["mlflow.note.content"]) == ("FINISHED", "own")


@pytest.mark.parametrize("answer", ["UNIQUE constraint failed: tags.key, tags.run_uuid", "duplicate key value"])
def test_a_tag_that_another_process_sets_in_the_same_moment_is_changed(
    store: Store, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find that the tag does not exist, and insert it: the database refuses one of them."""
    set_tag = store.client.set_tag
    refused: list[str] = []

    def raced(run_id: str, key: str, value: str) -> None:
        if not refused:
            refused.append(key)
            set_tag(run_id, key, "theirs")
            raise MlflowException(f"(IntegrityError) {answer}")
        set_tag(run_id, key, value)

    run_id = writing.start(store, writing.experiment_id(store, "race"), "one", {})
    monkeypatch.setattr(store.client, "set_tag", raced)
    writing.tag(store, run_id, {"compress.team": "ours"})
    tags = store.client.get_run(run_id).data.tags
    assert refused == [next(key for key, value in tags.items() if value == "ours")]


def test_what_else_a_store_refuses_is_not_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def refused(run_id: str, key: str, value: str) -> None:
        calls.append(key)
        raise MlflowException("the disk is full")

    run_id = writing.start(store, writing.experiment_id(store, "race"), "one", {})
    monkeypatch.setattr(store.client, "set_tag", refused)
    with pytest.raises(StoreError, match="the disk is full"):
        writing.tag(store, run_id, {"team": "ours"})
    assert len(calls) == 1
