from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Run, Selection
from mlflow_compress.reporting.compare import compare
from mlflow_compress.tracking import process_identity, reading, writing
from mlflow_compress.tracking.connection import open_store
from mlflow_compress.tracking.query import find, with_its_end

from .filled_stores import EVERYTHING, HOSTILE, SELECTIONS, add, copied, names, plain

MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri("")


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("by", ["our page", "MLflow's search"])
def test_a_server_gives_the_same_runs(
    filled: str, server_uri: str, selection: Selection, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = "runs" if by == "our page" else "served"
    monkeypatch.setattr(reading, unused, lambda *args: pytest.fail(f"{unused}: {args}"))
    by_client = find(["query *"], selection, [server_uri], directly=by == "our page")
    directly = find(["query *"], selection, [filled])
    ids = reading.experiments(open_store(server_uri))
    for run in (*by_client.runs, *by_client.originals):
        assert run.link == f"{server_uri}/#/experiments/{ids[run.experiment]}/runs/{run.run_id}"
    assert plain([replace(run, link="") for run in by_client.runs]) == plain(directly.runs)
    assert plain([replace(run, link="") for run in by_client.originals]) == plain(directly.originals)


def test_a_server_that_refuses(server_uri: str) -> None:
    with pytest.raises(StoreError, match="refused"):
        find(["query 1"], Selection(where="nonsense ="), [server_uri])


def test_what_is_selected(filled: str) -> None:
    assert len(find(["query 1"], EVERYTHING, [filled]).runs) == 5
    selected = find(["query 1"], Selection(teams=("beta",)), [filled])
    assert names(selected.runs) == [("beta", "yolo", "fp16")]
    assert names(selected.originals) == [("alpha", "yolo", "original")]
    selected = find(["query 1"], Selection(teams=(HOSTILE,), methods=("fp16",)), [filled])
    assert names(selected.runs) == [(HOSTILE, HOSTILE, "fp16")]
    assert names(selected.originals) == [(HOSTILE, HOSTILE, "original")]


def test_originals_of_others_are_read_only_where_the_own_are_missing(filled: str) -> None:
    selected = find(["query 1"], Selection(teams=("alpha",)), [filled])
    assert names(selected.runs) == [("alpha", "yolo", "fp16"), ("alpha", "yolo", "original")]
    assert selected.originals == ()
    selected = find(["query 1"], Selection(methods=("fp16",)), [filled])  # beta has none
    assert ("alpha", "yolo", "original") in names(selected.originals)


def test_an_original_of_another_name_is_found(filled: str) -> None:
    yes, no = {"original": "yes"}, {"original": "no"}
    add(filled, "named base", "alpha", "yolo", "base", 1000, **yes)
    add(filled, "named base", "alpha", "yolo", "int8", 2000, **no)
    add(
        filled, "named base", "alpha", "yolo", "original", 3000, **no
    )  # version 0.1 allowed this for a compressed model
    add(filled, "named base", "beta", "yolo", "original", 4000, **yes)
    selected = find(["named base"], Selection(methods=("int8",)), [filled])
    assert ("alpha", "yolo", "base") in names(selected.originals)
    (row,) = compare(selected.runs, originals=selected.originals).rows
    assert row.ratios["size/weights_mib"] == 2
    asked_of_mlflow = find(["named base"], Selection(methods=("int8",)), [filled], directly=False)
    assert sorted(names(asked_of_mlflow.originals)) == sorted(names(selected.originals))


def test_a_copied_original_keeps_no_measured_one_away(filled: str) -> None:
    add(filled, "copied later", "alpha", "yolo", "original", 1000)
    add(filled, "copied later", "alpha", "yolo", "original", 3000, source="imported", table="one")
    add(filled, "copied later", "alpha", "yolo", "int8", 2000)
    selected = find(["copied later"], Selection(since_ms=2000), [filled])
    assert [run.started_ms for run in selected.originals] == [1000]
    rows = {row.method: row for row in compare(selected.runs, originals=selected.originals).rows if not row.by_hand}
    assert rows["int8"].ratios["size/weights_mib"] == 2


def test_a_run_whose_process_died_has_ended(make_run: MakeRun) -> None:
    own_process = process_identity.mine()
    dead = own_process.replace(f":{os.getpid()}:", ":4194304:")  # above the kernel's limit
    elsewhere = dead.replace(process_identity.machine(), "0" * 16)
    without_result = {"compress.outcome.cpu": None, "status": None}
    for process, expected in {
        own_process: "in_progress",
        dead: "failed",
        elsewhere: "in_progress",
        "": "in_progress",
    }.items():
        run = make_run(lifecycle="RUNNING", tags={process_identity.TAG: process, **without_result})
        (failure,) = compare([with_its_end(run)]).failures
        assert (failure.team, failure.model, failure.method, failure.status) == ("alpha", "yolo", "original", expected)
    ended = make_run(tags={process_identity.TAG: dead})
    assert with_its_end(ended) is ended


@pytest.mark.parametrize("directly", [True, False])
def test_a_baseline_is_looked_for_among_all_runs(filled: str, directly: bool) -> None:
    for selection in (EVERYTHING, Selection(models=("vit",)), Selection(teams=("beta",), device="cpu")):
        (baseline,) = find(["query *"], selection, [filled], directly=directly, baselines=["vit=yolo"]).baselines
        assert (baseline.name, baseline.rows_of, baseline.is_run) == ("yolo", "vit", False)
        assert [line.key.team for line in baseline.lines] == ["alpha"]
    (run,) = find(["query 1"], Selection(teams=("beta",)), [filled]).runs
    (baseline,) = find(
        ["query *"], Selection(models=("vit",)), [filled], directly=directly, baselines=[run.run_id[:8]]
    ).baselines
    assert (baseline.name, baseline.is_run) == (run.run_id, True)
    with pytest.raises(StoreError, match="Did you mean 'yolo'"):
        find(["query *"], Selection(models=("vit",)), [filled], directly=directly, baselines=["yola"])
    with pytest.raises(StoreError, match="Unknown baseline"):
        find(["query 2"], EVERYTHING, [filled], directly=directly, baselines=["yolo"])  # in another experiment


def test_a_filter_of_mlflow(filled: str) -> None:
    selected = find(["query 1"], Selection(where="metrics.`size/weights_mib` > 500"), [filled])
    assert [run.started_ms for run in selected.runs] == [5000, 4000]
    with pytest.raises(StoreError, match="refused"):
        find(["query 1"], Selection(where="nonsense ="), [filled])


def test_patterns_and_names(filled: str) -> None:
    assert set(find(["query ?"], EVERYTHING, [filled]).experiments) == {"query 1", "query 2"}
    assert find(["query [2]"], EVERYTHING, [filled]).experiments == ("query 2",)
    store = open_store(filled)
    writing.experiment_id(store, "query [1]")  # a name that looks like a pattern is a name
    assert find(["query [1]"], EVERYTHING, [filled]).runs == ()


@pytest.mark.parametrize("directly", [True, False])
def test_an_unknown_experiment_comes_with_the_nearest_name(filled: str, directly: bool) -> None:
    with pytest.raises(StoreError, match=r"Unknown experiment 'qwery 1'\. Did you mean 'query 1'"):
        find(["query 1", "qwery 1"], EVERYTHING, [filled], directly=directly)


@pytest.mark.parametrize("directly", [True, False])
@pytest.mark.parametrize("name", [{"teams": ("alhpa",)}, {"models": ("yolo", "yollo")}, {"methods": ("fp61",)}])
def test_an_unknown_name_is_reported_with_the_nearest(
    filled: str, name: dict[str, tuple[str, ...]], directly: bool
) -> None:
    with pytest.raises(
        StoreError, match=r"No such run\. Unknown (team|model|method) .* Did you mean '(alpha|yolo|fp16)'"
    ):
        find(["query 1"], Selection(**name), [filled], directly=directly)  # type: ignore[arg-type]


def test_several_stores_make_one_answer(filled: str, tmp_path: Path) -> None:
    second_store = tmp_path / "bob's store #1.db"
    copied(filled, second_store)
    with sqlite3.connect(second_store) as database:
        database.execute("DELETE FROM latest_metrics")
        database.execute("UPDATE tags SET run_uuid = 'b' || run_uuid")
        database.execute("UPDATE params SET run_uuid = 'b' || run_uuid")
        database.execute("UPDATE runs SET run_uuid = 'b' || run_uuid")
        database.execute("UPDATE experiments SET name = 'query 3' WHERE name = 'query 2'")
    selected = find(["query 1", "query 3"], EVERYTHING, [filled, f"sqlite:///{second_store}"])
    assert len(selected.runs) == 11
    assert selected.runs[0].run_id.startswith("b")
    assert selected.experiments == ("query 1", "query 3")


def test_the_default_store_is_the_one_in_this_folder(filled: str, tmp_path: Path) -> None:
    copied(filled, tmp_path / "mlflow.db")
    assert len(find(["query 1"], EVERYTHING).runs) == 5


def test_selections_say_what_they_take(filled: str) -> None:
    all_runs = find(["query 1"], EVERYTHING, [filled]).runs
    for selection in SELECTIONS:
        selected = find(["query 1"], selection, [filled])
        assert plain([run for run in all_runs if selection.takes(run)]) == plain(selected.runs)
