"""`python -m tests.faults`: all faults at all steps, all models that harm their worker, and their table."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.servers import TrackingServer, make_database, postgres, postgres_folder

from .bad_workers import HARMS, BadWorkers
from .scenes import Count, Stage, table
from .victim import LOCAL, STEPS

_SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")


def main() -> None:
    """Play everything, print the table, and fail when something is lost, twice or stuck."""
    started = time.monotonic()
    counts: list[Count] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        stores = {"sqlite": f"sqlite:///{folder / 'mlflow.db'}"}
        if postgres_folder() is None:
            click.echo("PostgreSQL is not installed (apt-get install postgresql): sqlite only", err=True)
        else:
            stores["postgresql"] = make_database(stack.enter_context(postgres()), "mlflow")
        for name, database in stores.items():
            server = TrackingServer(folder / name, database)
            server.start()
            stack.callback(server.kill)
            stage = Stage(folder / name, server, name)
            for step in STEPS:
                for fault in (*_SIGNALS, *(() if step in LOCAL else ("server",))):
                    counts.append(stage.play(fault, step))
                    click.echo(counts[-1], err=True)
        (folder / "workers").mkdir()
        counts += BadWorkers(folder / "workers").play(list(HARMS))
    click.echo(table(counts))
    harmful = sum(not each.is_well for each in counts)
    click.echo(f"\n{len(counts)} faults, {harmful} of them did harm; {time.monotonic() - started:.0f} s")
    sys.exit(not all(each.is_well for each in counts))


if __name__ == "__main__":
    main()
