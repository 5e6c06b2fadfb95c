"""Runs read directly from a database equal those from MLflow's client, and nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Selection
from mlflow_compress.tracking.database import open_database
from mlflow_compress.tracking.query import find

from .filled_stores import EVERYTHING, SELECTIONS, copied, plain


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri("")


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("database", ["filled", "postgresql"])
def test_the_database_and_the_client_give_the_same_runs(
    database: str, selection: Selection, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue(database)
    opened = open_database(uri)
    assert opened is not None
    opened.close()
    directly = find(["query *"], selection, [uri])
    by_client = find(["query *"], selection, [uri], directly=False)
    assert plain(directly.runs) == plain(by_client.runs)
    assert plain(directly.originals) == plain(by_client.originals)
    assert directly.experiments == by_client.experiments
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


def test_reading_writes_nothing(filled: str, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    copied(filled, file)
    old_content = file.read_bytes()
    file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert find(["query 1"], EVERYTHING).runs
    finally:
        tmp_path.chmod(0o755)
    assert file.read_bytes() == old_content
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
