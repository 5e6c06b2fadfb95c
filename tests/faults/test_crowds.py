"""Several commands at once on one spool, and in one run of `mlflow run`: nothing lost, nothing twice, nothing stuck."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import make_database, postgres, postgres_folder

from .crowds import Crowd, outer_run, rows

SYNCS, RESULTS = 6, 8


@pytest.fixture(params=["sqlite", "postgresql"])
def crowd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crowd]:
    if request.param == "sqlite":
        yield Crowd(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")
    elif postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    else:
        with postgres() as server:
            yield Crowd(tmp_path, make_database(server, "mlflow"))


def test_syncs_at_once_send_each_result_once(crowd: Crowd) -> None:
    crowd.leave(RESULTS)
    assert crowd.ends() == {("RUNNING", "complete", "ok"): RESULTS / 2, ("RUNNING", "", ""): RESULTS / 2}
    crowd.play([["sync"]] * SYNCS)
    assert crowd.play([["sync"]]) == [0], crowd.said()
    assert crowd.ends() == {("FINISHED", "complete", "ok"): RESULTS}
    assert crowd.waiting() == 0
    assert "died" not in crowd.said()


def test_commands_at_once_in_one_run_keep_all_rows(crowd: Crowd) -> None:
    outer = outer_run(crowd)
    run = ["run", str(crowd.recipe), "--trust", "--no-log-model"]
    commands = [
        [*run, "--method", "original"],
        [*run, "--method", "bf16"],
        ["sweep", str(crowd.recipe), "--trust", "--no-log-model"],
    ]
    assert crowd.play(commands, MLFLOW_RUN_ID=outer) == [0, 0, 0], crowd.said()
    assert sorted(rows(crowd)) == ["bf16", "original", "original"]
    assert crowd.play(commands[1:2], MLFLOW_RUN_ID=outer) == [0]
    assert sorted(rows(crowd)) == ["bf16", "bf16", "original", "original"]
    assert {run.info.run_id: run.info.status for run in crowd.runs()}.pop(outer) == "RUNNING"  # `mlflow run` ends it
    assert sum(run.info.status == "RUNNING" for run in crowd.runs()) == 1
    assert all(run.data.tags.get("mlflow.parentRunId", outer) == outer for run in crowd.runs())
    assert crowd.waiting() == 0
