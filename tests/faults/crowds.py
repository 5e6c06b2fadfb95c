"""Many commands at once on one spool and one store: each result comes to MLflow once, and none is said to have died."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.servers import environment

from .victim import NUMBERS, PRELOAD, code_of, measured, suffer

EXPERIMENT = "crowd"


class Crowd:
    """A folder with a recipe and a spool, a tracking store, and processes that all begin at once.

    Args:
        folder: for everything.
        uri: of the tracking store.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        (folder / "small.py").write_text("")
        self.recipe = folder / "small.yaml"
        self.recipe.write_text("family: python\nsource: small.py\n")

    def leave(self, count: int) -> None:
        """Have a process begin to log so many results, and be killed."""
        died = self._start(_begin_and_die, (self.folder, self.environment(), count))
        died.join(timeout=300)
        assert died.exitcode == -signal.SIGKILL, died.exitcode

    def play(self, commands: Sequence[Sequence[str]], **variables: str) -> list[int]:
        """Run command lines of `compress-bench` all at once, and give their exit codes."""
        known = self.environment(**variables)
        processes = [self._start(suffer, (list(words), self.folder, known, "", "", 0)) for words in commands]
        for process in processes:
            process.join(timeout=500)
        return [code_of(process.exitcode) for process in processes]

    def environment(self, **variables: str) -> dict[str, str]:
        """Give the environment of all commands."""
        return environment(self.folder, MLFLOW_TRACKING_URI=self.uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", **variables)

    def said(self) -> str:
        """Give what the commands printed."""
        return (self.folder / "out").read_text(encoding="utf-8")

    def waiting(self) -> int:
        """Count the results in the spool."""
        return len([path for path in (self.folder / "spool").glob("*") if path.is_dir()])

    def ends(self) -> Mapping[tuple[str, ...], int]:
        """Count the runs by status in MLflow, what was logged of them, and the status of their result."""
        names = ("compress.logged", "status")
        return Counter(
            (run.info.status, *(run.data.tags.get(name, "") for name in names)) for run in self.runs() if run.data.tags
        )

    def runs(self) -> list[Any]:
        """Give the runs of the experiment."""
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))

    def _start(self, target: Any, given: tuple[Any, ...]) -> BaseProcess:
        process = self._context.Process(target=target, args=given)
        process.start()
        return process


def _begin_and_die(folder: Path, variables: dict[str, str], count: int) -> None:
    """Keep results, begin their runs, write every second one whole, end none, and be killed."""
    os.environ.clear()
    os.environ.update(variables)
    from mlflow_compress.records import Variant
    from mlflow_compress.tracking import sending, writing
    from mlflow_compress.tracking.connection import lasting, open_store
    from mlflow_compress.tracking.spool import Address, Shipment, Spool

    store = open_store(variables["MLFLOW_TRACKING_URI"])
    spool = Spool(folder / "spool")
    address = Address(lasting(store.uri), EXPERIMENT, with_model=False)
    setattr(writing, "end", lambda *given, **named: None)  # noqa: B010
    for at in range(count):
        entry = spool.begin()
        variant = Variant(f"small {at}", "original", "alpha", "python", "small.py")
        shipment = Shipment(entry, measured(variant, entry.folder), address, print).keep()
        if at % 2:
            sending.send(store, shipment)
        else:
            sending._run(store, shipment)
    os.kill(os.getpid(), signal.SIGKILL)


def outer_run(crowd: Crowd) -> str:
    """Begin a run as `mlflow run` does, and give its id."""
    from mlflow import MlflowClient

    client = MlflowClient(crowd.uri)
    return str(client.create_run(client.create_experiment(EXPERIMENT), run_name="funny-shrew-12").info.run_id)


def rows(crowd: Crowd) -> list[str]:
    """Give the method of each row that a table with every run would have, and check that all numbers are in it."""
    found = [run for run in crowd.runs() if run.data.tags.get("compress.role") == "variant"]
    assert all(run.data.metrics == NUMBERS for run in found), found
    return [run.data.tags["method"] for run in found]
