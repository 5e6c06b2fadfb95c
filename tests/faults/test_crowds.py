"""Several commands at once on one spool, and in one run of `mlflow run`: nothing is lost, duplicated or stuck."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import make_database, postgres, postgres_folder

from .crowds import Crowd, closed_folder, commands_in_one_run, syncs_at_once


@pytest.fixture(params=["sqlite", "postgresql"])
def crowd(request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path) -> Iterator[Crowd]:
    if request.param == "sqlite":
        yield Crowd(tmp_path, f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    elif postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    else:
        with postgres() as server:
            yield Crowd(tmp_path, make_database(server, "mlflow"))


def test_syncs_at_once_send_each_result_once(crowd: Crowd) -> None:
    count = syncs_at_once(crowd, results=8, syncs=4)
    assert count.is_well, (count, crowd.output())
    assert count.code == 0
    assert "died" not in crowd.output()


def test_commands_at_once_in_one_run_keep_all_rows(tmp_path: Path, empty_store: Path) -> None:
    crowd = Crowd(tmp_path, f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    count = commands_in_one_run(crowd)
    assert count.is_well, (count, crowd.output())
    assert count.code == 0


def test_what_a_folder_does_not_take_is_sent_when_it_does(tmp_path: Path, empty_store: Path) -> None:
    crowd = Crowd(tmp_path, f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    count = closed_folder(crowd)
    assert count.is_well, (count, crowd.output())
    assert count.code == 5
    assert "is not writable" in crowd.output()
    assert "Allow this user to write there" in crowd.output()
