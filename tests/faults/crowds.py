"""Many commands at once on one spool and one store: MLflow gets each result once, and no run is marked as killed."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.servers import environment

from .scenes import Count
from .victim import NUMBERS, PRELOAD, code_of, measured, suffer

EXPERIMENT = "crowd"


class Crowd:
    """A folder with a recipe and a spool, a tracking store, and processes that all start at once.

    Args:
        folder: Folder for all files.
        uri: URI of the tracking store.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        (folder / "small.py").write_text("")
        self.recipe = folder / "small.yaml"
        self.recipe.write_text("family: python\nsource: small.py\n")

    def leave(self, count: int) -> None:
        """Start a process that begins to log so many results and is killed."""
        died = self._start(_begin_and_die, (self.folder, self.environment(), count))
        died.join(timeout=300)
        assert died.exitcode == -signal.SIGKILL, died.exitcode

    def play(self, commands: Sequence[Sequence[str]], **variables: str) -> list[int]:
        """Run command lines of `compress-bench` all at once, and return their exit codes."""
        settings = self.environment(**variables)
        processes = [self._start(suffer, (list(words), self.folder, settings, "", "", 0)) for words in commands]
        for process in processes:
            process.join(timeout=500)
        return [code_of(process.exitcode) for process in processes]

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of all commands."""
        return environment(self.folder, MLFLOW_TRACKING_URI=self.uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", **variables)

    def output(self) -> str:
        """Return what the commands printed."""
        return (self.folder / "out").read_text(encoding="utf-8")

    def runs(self) -> list[Any]:
        """Return the runs of the experiment."""
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))

    def _start(self, target: Any, args: tuple[Any, ...]) -> BaseProcess:
        process = self._context.Process(target=target, args=args)
        process.start()
        return process


def _begin_and_die(folder: Path, variables: dict[str, str], count: int) -> None:
    """Keep results and start their runs, write every second run completely, end none, and kill this process."""
    os.environ.clear()
    os.environ.update(variables)
    from mlflow_compress.records import Variant
    from mlflow_compress.tracking import sending, writing
    from mlflow_compress.tracking.connection import lasting, open_store
    from mlflow_compress.tracking.spool import Address, Shipment, Spool

    store = open_store(variables["MLFLOW_TRACKING_URI"])
    spool = Spool(folder / "spool")
    address = Address(lasting(store.uri), EXPERIMENT, with_model=False)
    setattr(writing, "end", lambda *args, **kwargs: None)  # noqa: B010
    for index in range(count):
        entry = spool.begin()
        variant = Variant(f"small {index}", "original", "alpha", "python", "small.py")
        shipment = Shipment(entry, measured(variant, entry.folder), address, print).keep()
        if index % 2:
            sending.send(store, shipment)
        else:
            sending._run(store, shipment)
    os.kill(os.getpid(), signal.SIGKILL)


def syncs_at_once(crowd: Crowd, results: int, syncs: int) -> Count:
    """Leave results half logged, run so many `sync` commands at once, and count."""
    crowd.leave(results)
    crowd.play([["sync"]] * syncs)
    (code,) = crowd.play([["sync"]])
    killed = sum("compress.reason" in run.data.tags for run in crowd.runs())
    count = _count(crowd, f"{syncs} syncs at once", "results half logged", code, results)
    return dataclasses.replace(count, lost=count.lost + killed)


def commands_in_one_run(crowd: Crowd) -> Count:
    """Measure two methods, one of them twice, and sweep, all in one run as `mlflow run` starts it; then count."""
    from mlflow import MlflowClient

    client = MlflowClient(crowd.uri)
    outer = str(client.create_run(client.create_experiment(EXPERIMENT), run_name="funny-shrew-12").info.run_id)
    measure = ["run", str(crowd.recipe), "--trust", "--no-log-model", "--method"]
    sweep = ["sweep", str(crowd.recipe), "--trust", "--no-log-model", "--again"]
    codes = crowd.play([[*measure, "original"], [*measure, "bf16"], sweep], MLFLOW_RUN_ID=outer)
    codes += crowd.play([[*measure, "bf16"]], MLFLOW_RUN_ID=outer)
    client.set_terminated(outer)  # as `mlflow run` does
    strays = sum(run.data.tags.get("mlflow.parentRunId", outer) != outer for run in crowd.runs())
    count = _count(crowd, "4 commands in one run", "3 of them at once", max(codes), 4)
    return dataclasses.replace(count, lost=count.lost + strays)


def closed_folder(crowd: Crowd) -> Count:
    """Log while a file blocks the artifact folder, send again, remove the file, send, and count."""
    from mlflow import MlflowClient

    blocked = crowd.folder / "way"
    blocked.write_text("")
    MlflowClient(crowd.uri).create_experiment(EXPERIMENT, artifact_location=str(blocked / "artifacts"))
    run_command = ["run", str(crowd.recipe), "--trust", "-e", EXPERIMENT]
    (code,) = crowd.play([run_command])
    assert crowd.play([["sync"]]) == crowd.play([["sync"]]) == [code], crowd.output()
    stuck = sum(run.info.status == "RUNNING" for run in crowd.runs())
    blocked.unlink()
    assert crowd.play([["sync"]]) == [0], crowd.output()
    count = _count(crowd, "artifact folder", "is not writable", code, 1)
    return dataclasses.replace(count, stuck=count.stuck + stuck)


def _count(crowd: Crowd, fault: str, step: str, code: int, expected: int) -> Count:
    """Compare the runs in the store with the expected number of results."""
    rows = [run for run in crowd.runs() if run.data.tags.get("compress.role") == "variant"]
    complete = [
        run
        for run in rows
        if (run.info.status, run.data.tags.get("mlflow.compress.logged"), run.data.tags.get("status"))
        == ("FINISHED", "complete", "ok")
        and run.data.metrics == NUMBERS
    ]
    waiting = len([path for path in (crowd.folder / "spool").glob("*") if path.is_dir()])
    stuck = waiting + sum(run.info.status == "RUNNING" for run in crowd.runs())
    store = crowd.uri.partition(":")[0].partition("+")[0]
    return Count(store, fault, step, code, expected - min(expected, len(complete)), max(0, len(rows) - expected), stuck)
