"""Run a fault, let `compress-bench` recover, and count what is lost, duplicated or stuck."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import TrackingServer, environment

from .victim import NUMBERS, PRELOAD, UNKEPT, code_of, suffer

VARIANTS = ("original", "int8_dynamic")
_RECIPE = f"family: python\nsource: small.py\nvariants: [{', '.join(VARIANTS)}]\n"
_RUNS = """
SELECT r.run_uuid, r.status, m.value AS method, l.value AS logged FROM runs r
JOIN experiments e ON e.experiment_id = r.experiment_id AND e.name = :experiment
LEFT JOIN tags m ON m.run_uuid = r.run_uuid AND m.key = 'method'
LEFT JOIN tags l ON l.run_uuid = r.run_uuid AND l.key = 'mlflow.compress.logged'
WHERE r.lifecycle_stage = 'active'
"""
_METRICS = "SELECT count(*), count(DISTINCT key) FROM metrics WHERE run_uuid = :run"
_MODELS = (
    "SELECT status, count(*) FROM logged_models WHERE source_run_id = :run AND lifecycle_stage = 'active' GROUP BY 1"
)
_READY = "2"


@dataclass(frozen=True)
class Count:
    """What a fault did.

    Attributes:
        store: Kind of tracking store.
        fault: What died, and how.
        step: Step at which it died.
        code: Exit code of the command with the fault.
        lost: Number of results or metrics that are missing after `sync` and another `sweep`.
        twice: Number of duplicated runs, metrics or models.
        stuck: Number of runs that are still RUNNING and results that are still in the spool.
    """

    store: str
    fault: str
    step: str
    code: int
    lost: int
    twice: int
    stuck: int

    @property
    def is_well(self) -> bool:
        """Whether nothing is lost, duplicated or stuck."""
        return not (self.lost or self.twice or self.stuck)


class Stage:
    """A folder, a tracking server and a process to fork victims from.

    Args:
        folder: Folder for all files.
        server: Running tracking server.
        name: Name of the server's store.
    """

    def __init__(self, folder: Path, server: TrackingServer, name: str) -> None:
        self._folder, self._server, self._name = folder, server, name
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._played = 0
        (folder / "small.py").write_text("")
        self.recipe = folder / "small.yaml"
        self.recipe.write_text(_RECIPE)

    def play(self, fault: str, step: str) -> Count:
        """Sweep with a fault, sync, and sweep again; then count."""
        self._played += 1
        experiment = f"fault {self._played}"
        folder = self._folder / str(self._played)
        folder.mkdir()
        words = ["sweep", str(self.recipe), "--trust", "-e", experiment]
        code = self.bench(folder, words, step, fault)
        if fault == "server":
            self._server.kill()
            self._server.start()
        assert self.bench(folder, ["sync"]) == 0, (folder / "out").read_text()
        stuck = self._running(experiment)
        # results in the spool are sent, not measured again
        lost = int(step not in UNKEPT and not self._whole(experiment, VARIANTS[0]))
        assert self.bench(folder, words) == 0, (folder / "out").read_text()
        count = self.count(experiment, folder)
        lost, stuck = count.lost + lost, count.stuck + stuck
        return dataclasses.replace(count, fault=fault, step=step, code=code, lost=lost, stuck=stuck)

    def bench(self, folder: Path, words: Sequence[str], step: str = "", fault: str = "") -> int:
        """Run a command line of `compress-bench` in a separate process, and return its exit code."""
        settings = environment(folder, MLFLOW_TRACKING_URI=self._server.uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
        args = (list(words), folder, settings, step, fault, self._server.group)
        process = self._context.Process(target=suffer, args=args)
        process.start()
        process.join(timeout=300)
        return code_of(process.exitcode)

    def _whole(self, experiment: str, method: str) -> list[str]:
        """Return the ids of a variant's complete runs."""
        expected = (method, "FINISHED", "complete")
        return [
            run
            for run, status, name, logged in self._select(_RUNS, experiment=experiment)
            if (name, status, logged) == expected
        ]

    def _running(self, experiment: str) -> int:
        return sum(status == "RUNNING" for _, status, _, _ in self._select(_RUNS, experiment=experiment))

    def count(self, experiment: str, folder: Path) -> Count:
        """Count the runs of both variants in an experiment, and the results in a folder's spool."""
        lost = twice = 0
        runs = self._select(_RUNS, experiment=experiment)
        for method in VARIANTS:
            method_runs = [run for run, status, name, logged in runs if name == method]
            complete = self._whole(experiment, method)
            lost += not complete
            twice += max(0, len(method_runs) - 1)
            for run in complete:
                ((numbers, names),) = self._select(_METRICS, run=run)
                lost += len(NUMBERS) - names
                twice += numbers - names
                models = {str(status): count for status, count in self._select(_MODELS, run=run)}
                lost += _READY not in models
                twice += max(0, sum(models.values()) - 1)
        twice += len(runs) - sum(method in VARIANTS for _, _, method, _ in runs)  # runs without a result
        stuck = self._running(experiment) + len([path for path in (folder / "spool").iterdir() if path.is_dir()])
        return Count(self._name, "", "", 0, lost, twice, stuck)

    def _select(self, query: str, **values: str) -> list[tuple[Any, ...]]:
        import sqlalchemy

        engine = sqlalchemy.create_engine(self._server.database)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(sqlalchemy.text(query), values)]
        finally:
            engine.dispose()


def table(counts: Iterable[Count]) -> str:
    """Return the table of counts as Markdown."""
    lines = [
        "| store | what died | at step | exit code | lost | twice | stuck |",
        "| :-- | :-- | :-- | --: | --: | --: | --: |",
    ]
    lines += [f"| {c.store} | {c.fault} | {c.step} | {c.code} | {c.lost} | {c.twice} | {c.stuck} |" for c in counts]
    return "\n".join(lines)
