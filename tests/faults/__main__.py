"""`python -m tests.faults`: run all faults at all steps, all crowds and all harmful models, and print a table."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.servers import TrackingServer, make_database, postgres, postgres_folder

from .bad_workers import HARMS, BadWorkers
from .crowds import Crowd, closed_folder, commands_in_one_run, syncs_at_once
from .scenes import Count, Stage, table
from .victim import LOCAL, STEPS

_SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
_RESULTS, _SYNCS = 24, 40


def main() -> None:
    """Run everything, print the table, and fail if something is lost, duplicated or stuck."""
    started = time.monotonic()
    counts: list[Count] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        databases = {"sqlite": ""}
        if postgres_folder() is None:
            click.echo("PostgreSQL is not installed (apt-get install postgresql): sqlite only", err=True)
        else:
            databases["postgresql"] = stack.enter_context(postgres())
        for name, database in databases.items():
            for scenes in (_steps, _crowds):
                for count in scenes(folder / name, database):
                    counts.append(count)
                    click.echo(count, err=True)
        (folder / "workers").mkdir()
        counts += BadWorkers(folder / "workers").play(list(HARMS))
    click.echo(table(counts))
    harmful = sum(not c.is_well for c in counts)
    click.echo(f"\n{len(counts)} faults, {harmful} of them did harm; {time.monotonic() - started:.0f} s")
    sys.exit(not all(c.is_well for c in counts))


def _steps(folder: Path, database: str) -> Iterator[Count]:
    """Run each fault at each step of logging to a tracking server."""
    server = TrackingServer(folder, _store(folder, database, "mlflow"))
    server.start()
    try:
        stage = Stage(folder, server, folder.name)
        for step in STEPS:
            for fault in (*_SIGNALS, *(() if step in LOCAL else ("server",))):
                yield stage.play(fault, step)
    finally:
        server.kill()


def _crowds(folder: Path, database: str) -> Iterator[Count]:
    """Run many commands at once, and other scenes that need a separate store."""
    crowds = []
    for name in ("syncs", "commands", "closed"):
        (folder / name).mkdir(parents=True)
        crowds.append(Crowd(folder / name, _store(folder / name, database, name)))
    yield syncs_at_once(crowds[0], _RESULTS, _SYNCS)
    yield commands_in_one_run(crowds[1])
    yield closed_folder(crowds[2])


def _store(folder: Path, database: str, name: str) -> str:
    """Return the URI of a new store: on a database server, or a file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return make_database(database, name) if database else f"sqlite:///{folder / 'mlflow.db'}"


if __name__ == "__main__":
    main()
