"""A locked file is waited for, and the message names the process: for readers and writers."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import sqlite_file, writing
from mlflow_compress.tracking.connection import check, open_store, refusals
from mlflow_compress.tracking.query import find

from .filled_stores import EVERYTHING, copied

HOLD = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"BEGIN {sys.argv[2]}")
print("locked", flush=True)
time.sleep(float(sys.argv[3]))
"""
LONG = 600.0  # seconds


@contextlib.contextmanager
def locked(file: Path, mode: str, seconds: float = LONG) -> Iterator[int]:
    """Let another process lock a file; return its id."""
    command = [sys.executable, "-c", HOLD, str(file), mode, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def file(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new store."""
    monkeypatch.chdir(tmp_path)
    copied(filled, tmp_path / "mlflow.db")
    return tmp_path / "mlflow.db"


def test_a_reader_waits_until_a_file_is_free(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with locked(file, "EXCLUSIVE", 2.5) as pid:
        assert find(["query 1"], EVERYTHING, [f"sqlite:///{file}"]).runs
    assert f"waiting for process {pid} (python), which has {file} locked" in capfd.readouterr().err


def test_a_writer_waits_until_a_file_is_free(file: Path) -> None:
    with locked(file, "IMMEDIATE", 2.5):
        store = open_store(f"sqlite:///{file}")
        assert writing.start(store, writing.experiment_id(store, "new"), "a run", {})


@pytest.mark.parametrize("directly", [True, False])
def test_a_reader_says_who_keeps_a_file_locked(file: Path, monkeypatch: pytest.MonkeyPatch, directly: bool) -> None:
    monkeypatch.setattr(sqlite_file, "PATIENCE_SECONDS", 0.1)
    with locked(file, "EXCLUSIVE") as pid, pytest.raises(StoreError, match=rf"is locked by process {pid} \(python\)"):
        find(["query 1"], EVERYTHING, [f"sqlite:///{file}"], directly=directly)


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_writer_says_who_keeps_a_file_locked(file: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    store = open_store(f"sqlite:///{file}")
    monkeypatch.setattr(sqlite_file, "PATIENCE_SECONDS", 0.1)
    with locked(file, mode) as pid:
        for call in (lambda: open_store(f"sqlite:///{file}"), lambda: check(store)):
            with pytest.raises(StoreError, match=rf"is locked by process {pid} \(python\)"):
                call()


def test_a_file_that_gets_locked_while_writing_is_reported(file: Path) -> None:
    """MLflow itself waits for 20 s: this tests only its message."""
    error = (
        "(raised as a result of Query-invoked autoflush)\n(sqlite3.OperationalError) database is locked\n[SQL: INSERT"
    )
    expected = rf"refused: {file} is locked by process \d+ \(python\)"
    with locked(file, "IMMEDIATE"), pytest.raises(StoreError, match=expected), refusals(f"sqlite:///{file}"):
        raise RuntimeError(error)


def test_who_only_reads_is_not_kept_by_one_who_is_about_to_write(file: Path) -> None:
    with locked(file, "IMMEDIATE"):
        assert find(["query 1"], EVERYTHING, [f"sqlite:///{file}"]).runs


@pytest.mark.parametrize("uri", ["sqlite:///:memory:", "sqlite:///", "sqlite:///none.db?x=1", "mlruns", "http://x"])
def test_what_is_no_file_is_not_waited_for(uri: str) -> None:
    assert sqlite_file.path_of(uri) is None
    sqlite_file.wait_for(uri)
