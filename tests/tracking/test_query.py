from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from benchmarks.servers import TrackingServer, make_database, postgres, postgres_folder
from mlflow_compress.errors import StoreError
from mlflow_compress.records import Run, Selection
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, open_store
from mlflow_compress.tracking.database import open_database
from mlflow_compress.tracking.private_mlflow import SCHEMAS
from mlflow_compress.tracking.query import find

HOSTILE = 'it\'s "quoted" | `x` %_ \\ ; -- 🙂 Ёж'
EVERYTHING = Selection()


@pytest.fixture(scope="module")
def filled(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a store with two experiments of some variants, some of them strange."""
    fill(tracking_uri, tmp_path_factory.mktemp("artifacts"))
    return tracking_uri


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the same in PostgreSQL."""
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres() as server:
        uri = make_database(server, "query")
        fill(uri, tmp_path_factory.mktemp("artifacts"))
        yield uri


def fill(uri: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        add(uri, "query 1", "alpha", "yolo", "original", 1000)
        add(uri, "query 1", "alpha", "yolo", "fp16", 2000)
        add(uri, "query 1", "beta", "yolo", "fp16", 3000, device="gpu")
        add(uri, "query 1", HOSTILE, HOSTILE, "original", 4000)
        add(uri, "query 1", HOSTILE, HOSTILE, "fp16", 5000)
        add(uri, "query 2", "beta", "vit", "original", 6000)
        store = open_store(uri)
        writing.start(store, writing.experiment_id(store, "query 1"), "sweep", {"compress.role": "sweep"})
        deleted = add(uri, "query 1", "alpha", "yolo", "deleted", 7000)
        MlflowClient(uri).delete_run(deleted)
    mlflow.set_tracking_uri("")


def add(uri: str, experiment: str, team: str, model: str, method: str, at: int, device: str = "cpu") -> str:
    store = open_store(uri)
    tags = {
        "team": team,
        "model": model,
        "method": method,
        "status": "ok",
        "compress.role": "variant",
        f"compress.outcome.{device}": "ok",
        "compress.note": "mlflow.x",
    }
    run_id = writing.start(
        store, writing.experiment_id(store, experiment), f"{model} {method}"[:200], tags, start_ms=at
    )
    numbers = {"size/weights_mib": at / 7, "cpu/nan": float("nan"), "cpu/inf": float("inf"), "cpu/zero": -0.0}
    MlflowClient(uri).log_batch(
        run_id,
        [Metric(name, value, 1, 0) for name, value in numbers.items()],
        [Param("team", team), Param("limit", "5")],
        [RunTag("empty", "")],
    )
    writing.end(store, run_id, succeeded=True)
    return run_id


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri("")


def names(runs: tuple[Run, ...]) -> list[tuple[str, str, str]]:
    return [(run.tags["team"], run.tags["model"], run.tags["method"]) for run in runs]


def plain(runs: Sequence[Run]) -> str:
    """Give all that runs hold, in an order that does not depend on the store; NaN is no equal of itself."""

    def in_order(items: Mapping[str, Any]) -> dict[str, Any]:
        return dict(sorted(items.items()))

    ordered = [
        replace(run, tags=in_order(run.tags), params=in_order(run.params), metrics=in_order(run.metrics))
        for run in runs
    ]
    return "\n".join(map(repr, ordered))


SELECTIONS = [
    EVERYTHING,
    Selection(teams=("alpha",)),
    Selection(teams=("alpha", "beta"), methods=("fp16",)),
    Selection(teams=(HOSTILE,)),
    Selection(models=(HOSTILE, "yolo")),
    Selection(since_ms=3000),
    Selection(device="gpu"),
    Selection(methods=("fp16",), since_ms=2000, device="cpu"),
]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("database", ["filled", "postgresql"])
def test_the_database_and_the_client_give_the_same_runs(
    database: str, selection: Selection, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue(database)
    read = open_database(uri)
    assert read is not None
    read.close()
    directly = find(["query *"], selection, [uri])
    asked = find(["query *"], selection, [uri], directly=False)
    assert plain(directly.runs) == plain(asked.runs)
    assert plain(directly.originals) == plain(asked.originals)
    assert directly.experiments == asked.experiments
    assert directly.runs
    for run in (*directly.runs, *directly.originals):
        assert run.params == {"team": run.tags["team"]}
        assert "empty" in run.tags
        assert not any(name.startswith("mlflow.") for name in run.tags)


@pytest.mark.parametrize("database", ["filled", "postgresql"])
def test_a_time_of_today_is_a_large_number(database: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(database)
    assert find(["query *"], Selection(since_ms=1_764_115_200_000), [uri]).runs == ()
    assert open_database(uri) is not None


@pytest.fixture(scope="module")
def served(filled: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the filled store, with our app."""
    server = TrackingServer(tmp_path_factory.mktemp("served"), filled, options=("--app-name", "compress"))
    server.start()
    yield server.uri
    server.kill()


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("by", ["our page", "MLflow's search"])
def test_a_server_gives_the_same_runs(
    filled: str, served: str, selection: Selection, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = "runs" if by == "our page" else "served"
    monkeypatch.setattr(reading, unused, lambda *given: pytest.fail(f"{unused}: {given}"))
    asked = find(["query *"], selection, [served], directly=by == "our page")
    directly = find(["query *"], selection, [filled])
    ids = reading.experiments(open_store(served))
    for run in (*asked.runs, *asked.originals):
        assert run.link == f"{served}/#/experiments/{ids[run.experiment]}/runs/{run.run_id}"
    assert plain([replace(run, link="") for run in asked.runs]) == plain(directly.runs)
    assert plain([replace(run, link="") for run in asked.originals]) == plain(directly.originals)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (404, b"{}"),
        (200, b"<!doctype html>"),
        (200, b'{"runs": []}'),
        (200, b'{"compress_runs": 1}'),
        (401, b""),
        (200, b"[]"),
    ],
)
def test_a_server_without_our_page(status: int, content: bytes) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        assert reading.served(Store(MlflowClient(uri), uri), {"1": "hw1"}, {}) is None
        server.shutdown()


def test_a_server_that_refuses(served: str) -> None:
    with pytest.raises(StoreError, match="refused"):
        find(["query 1"], Selection(where="nonsense ="), [served])


def test_pages_make_one_answer(filled: str, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_compress.tracking.reading._PAGE", 2)
    monkeypatch.setattr("mlflow_compress.tracking.reading._EXPERIMENTS_PER_PAGE", 1)
    for uri in (filled, served):
        assert [run.started_ms for run in find(["query *"], EVERYTHING, [uri], directly=False).runs] == [
            6000, 5000, 4000, 3000, 2000, 1000,
        ]  # fmt: skip


def test_what_is_selected(filled: str) -> None:
    assert len(find(["query 1"], EVERYTHING, [filled]).runs) == 5
    found = find(["query 1"], Selection(teams=("beta",)), [filled])
    assert names(found.runs) == [("beta", "yolo", "fp16")]
    assert names(found.originals) == [("alpha", "yolo", "original")]
    found = find(["query 1"], Selection(teams=(HOSTILE,), methods=("fp16",)), [filled])
    assert names(found.runs) == [(HOSTILE, HOSTILE, "fp16")]
    assert names(found.originals) == [(HOSTILE, HOSTILE, "original")]


def test_originals_of_others_are_read_only_where_the_own_are_missing(filled: str) -> None:
    found = find(["query 1"], Selection(teams=("alpha",)), [filled])
    assert names(found.runs) == [("alpha", "yolo", "fp16"), ("alpha", "yolo", "original")]
    assert found.originals == ()
    found = find(["query 1"], Selection(methods=("fp16",)), [filled])  # beta has none
    assert ("alpha", "yolo", "original") in names(found.originals)


def test_a_filter_of_mlflow(filled: str) -> None:
    found = find(["query 1"], Selection(where="metrics.`size/weights_mib` > 500"), [filled])
    assert [run.started_ms for run in found.runs] == [5000, 4000]
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
def test_a_name_that_no_run_bears_comes_with_the_nearest(
    filled: str, name: dict[str, tuple[str, ...]], directly: bool
) -> None:
    with pytest.raises(
        StoreError, match=r"No such run\. Unknown (team|model|method) .* Did you mean '(alpha|yolo|fp16)'"
    ):
        find(["query 1"], Selection(**name), [filled], directly=directly)  # type: ignore[arg-type]


def test_several_stores_make_one_answer(filled: str, tmp_path: Path) -> None:
    other = tmp_path / "bob's store #1.db"
    copied(filled, other)
    with sqlite3.connect(other) as database:
        database.execute("DELETE FROM latest_metrics")
        database.execute("UPDATE tags SET run_uuid = 'b' || run_uuid")
        database.execute("UPDATE params SET run_uuid = 'b' || run_uuid")
        database.execute("UPDATE runs SET run_uuid = 'b' || run_uuid")
        database.execute("UPDATE experiments SET name = 'query 3' WHERE name = 'query 2'")
    found = find(["query 1", "query 3"], EVERYTHING, [filled, f"sqlite:///{other}"])
    assert len(found.runs) == 11
    assert found.runs[0].run_id.startswith("b")
    assert found.experiments == ("query 1", "query 3")


def test_the_default_store_is_the_one_in_this_folder(filled: str, tmp_path: Path) -> None:
    copied(filled, tmp_path / "mlflow.db")
    assert len(find(["query 1"], EVERYTHING).runs) == 5


def test_many_runs_are_read_as_few_are(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = find(["query 1"], EVERYTHING, [filled]).runs
    monkeypatch.setattr("mlflow_compress.tracking.database._FEW", 1)
    assert plain(find(["query 1"], EVERYTHING, [filled]).runs) == plain(few)


def test_a_store_of_another_schema_is_left_to_the_client(filled: str, tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    copied(filled, newer)
    assert open_database(f"sqlite:///{newer}") is not None
    with sqlite3.connect(newer) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert open_database(f"sqlite:///{newer}") is None
    with pytest.raises(StoreError, match="can't be opened"):
        find(["query 1"], EVERYTHING, [f"sqlite:///{newer}"])


def test_the_schema_of_the_installed_mlflow_is_known(tracking_uri: str) -> None:
    with sqlite3.connect(tracking_uri.removeprefix("sqlite:///")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone()[0] in SCHEMAS


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0 and then nonsense"])
def test_a_file_that_is_no_store_of_mlflow_is_neither_read_nor_changed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.db"
    file.write_bytes(content)
    assert open_database(f"sqlite:///{file}") is None
    with pytest.raises(StoreError, match="is no tracking store of MLflow"):
        find(["query 1"], EVERYTHING, [f"sqlite:///{file}"])
    assert file.read_bytes() == content


def test_another_programs_database_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "bookmarks.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")
    with pytest.raises(StoreError, match="is no tracking store of MLflow"):
        find(["query 1"], EVERYTHING, [f"sqlite:///{file}"])
    with sqlite3.connect(file) as database:
        assert [name for (name,) in database.execute("SELECT name FROM sqlite_master")] == ["experiments"]


def test_reading_writes_nothing(filled: str, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    copied(filled, file)
    before = file.read_bytes()
    file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert find(["query 1"], EVERYTHING).runs
    finally:
        tmp_path.chmod(0o755)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


def test_selections_say_what_they_take(filled: str) -> None:
    everything = find(["query 1"], EVERYTHING, [filled]).runs
    for selection in SELECTIONS:
        found = find(["query 1"], selection, [filled])
        assert plain([run for run in everything if selection.takes(run)]) == plain(found.runs)


def copied(uri: str, path: Path) -> None:
    shutil.copy(uri.removeprefix("sqlite:///"), path)
