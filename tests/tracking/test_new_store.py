"""A new store is created once and completely, with any number of processes, and wherever one is stopped."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import make_database, postgres, postgres_folder
from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import connection, new_store, private_mlflow, reading
from mlflow_compress.tracking.connection import open_store

COMMANDS = Path(__file__).parent / "first_commands.py"
WRITERS, READERS = 5, 2


@pytest.fixture(params=["sqlite", "postgresql"])
def missing_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the address of a store that does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'a folder' / 'mlflow.db'}"
        return
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres() as server:
        yield make_database(server, "first")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_many_first_commands_at_once_all_succeed(
    missing_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, str(COMMANDS), missing_store, str(WRITERS), str(READERS)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    wrote = [line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")]
    assert len(lines) == WRITERS + READERS
    assert len(set(wrote)) == WRITERS, process.stdout + process.stderr
    for line in lines:
        assert line.startswith(("wrote ", "read ", "refused: There is no tracking store")), line
    monkeypatch.chdir(tmp_path)
    store = open_store(missing_store, create=False)
    ids = reading.experiments(store)
    assert sorted(ids) == ["Default", "hw1"]
    runs = reading.runs(store, {ids["hw1"]: "hw1"})
    assert sorted(run.tags["compress.result_id"] for run in runs) == [f"result {number}" for number in range(WRITERS)]
    if missing_store.startswith("sqlite"):
        assert [path.name for path in (tmp_path / "a folder").iterdir()] == ["mlflow.db"]


def test_one_who_is_stopped_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(private_mlflow, "make_tables", stopped)
    with pytest.raises(KeyboardInterrupt):
        new_store.make(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_somebody_else_made_meanwhile_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"ours")
        (tmp_path / "mlflow.db").write_bytes(b"theirs")

    monkeypatch.setattr(private_mlflow, "make_tables", overtaken)
    new_store.make(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_where_no_links_are_mlflow_makes_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_mlflow, "make_tables", lambda uri: Path(uri.removeprefix("sqlite:///")).touch())
    monkeypatch.setattr(os, "link", lambda *args: (_ for _ in ()).throw(PermissionError()))
    new_store.make(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_an_incomplete_store_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "_RACE_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("CREATE TABLE latest_metrics (key TEXT)")
    with pytest.raises(StoreError, match=r"its tables are incomplete .*already exists"):
        open_store("sqlite:///mlflow.db")
    assert (
        "waiting for another process that is creating the tracking store sqlite:///mlflow.db" in capsys.readouterr().err
    )
