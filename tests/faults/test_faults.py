"""Some faults of `python -m tests.faults`: nothing is lost, duplicated or stuck."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import TrackingServer, make_database, postgres, postgres_folder

from .scenes import Count, Stage, table

needs_postgres = pytest.mark.skipif(postgres_folder() is None, reason="PostgreSQL is not installed")
ON_SQLITE = [
    ("SIGKILL", "half written to the spool"),
    ("SIGKILL", "kept"),
    ("SIGKILL", "run started"),
    ("SIGKILL", "records logged"),
    ("SIGKILL", "model uploaded, not finished"),
    ("SIGKILL", "marked as complete"),
    ("SIGKILL", "half removed from the spool"),
    ("SIGTERM", "files logged"),
    ("SIGINT", "model made, not uploaded"),
    ("server", "params, metrics and tags logged"),
]
ON_POSTGRES = [("SIGKILL", "params, metrics and tags logged"), ("server", "model made, not uploaded")]


@pytest.fixture(scope="module")
def counts() -> Iterator[list[Count]]:
    """Collect the counts, and print them as a table at the end."""
    collected: list[Count] = []
    yield collected
    sys.stdout.write(f"\n{table(collected)}\n")  # `pytest -s` shows it


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("sqlite")
    server = TrackingServer(folder, f"sqlite:///{shutil.copy(empty_store, folder)}")
    server.start()
    yield Stage(folder, server, "sqlite")
    server.kill()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("postgresql")
    with postgres() as database_server:
        server = TrackingServer(folder, make_database(database_server, "mlflow"))
        server.start()
        yield Stage(folder, server, "postgresql")
        server.kill()


@pytest.mark.parametrize(("fault", "step"), ON_SQLITE)
def test_on_sqlite(sqlite: Stage, counts: list[Count], fault: str, step: str) -> None:
    counts.append(sqlite.play(fault, step))
    assert counts[-1].is_well, counts[-1]
    assert counts[-1].code == {"SIGKILL": 137, "SIGTERM": 143, "SIGINT": 130, "server": 5}[fault]


@needs_postgres
@pytest.mark.parametrize(("fault", "step"), ON_POSTGRES)
def test_on_postgresql(postgresql: Stage, counts: list[Count], fault: str, step: str) -> None:
    counts.append(postgresql.play(fault, step))
    assert counts[-1].is_well, counts[-1]


def test_what_goes_wrong_is_seen(sqlite: Stage, tmp_path: Path) -> None:
    """Check the counting itself: without recovery, something is lost and something is stuck."""
    folder = tmp_path
    words = ["sweep", str(sqlite.recipe), "--trust", "-e", "not recovered"]
    sqlite.bench(folder, words, "model made, not uploaded", "SIGKILL")
    count = sqlite.count("not recovered", folder)
    assert count.lost > 0
    assert count.stuck > 0
    sqlite.bench(folder, ["sync"])
    sqlite.bench(folder, words)
    sqlite.bench(folder, [*words, "--again"])
    count = sqlite.count("not recovered", folder)
    assert (count.lost, count.twice, count.stuck) == (0, 2, 0)
