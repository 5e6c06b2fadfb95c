"""Load: many teams log many runs each to one `mlflow server` at once; nothing is lost, duplicated or mixed up.

The server uses a PostgreSQL database if that is installed, else SQLite. Each result is written to the spool, sent, and
removed from the spool.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.finding import Cell, Finding
from benchmarks.servers import TrackingServer, environment, make_database, postgres, postgres_folder

TEAMS, RUNS, PER_PROCESS = 32, 50, 4
_METRICS = 40
_EXPERIMENT = "load"
_RUNS_BY_TEAM = """
SELECT r.run_uuid, r.status, t.value AS team, p.value AS param_team, k.value AS result_id, l.value AS logged
FROM runs r
LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'team'
LEFT JOIN params p ON p.run_uuid = r.run_uuid AND p.key = 'team'
LEFT JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'mlflow.compress.result_id'
LEFT JOIN tags l ON l.run_uuid = r.run_uuid AND l.key = 'mlflow.compress.logged'
WHERE r.lifecycle_stage = 'active'
"""
_NUMBERS = "SELECT run_uuid, key, value FROM metrics"


def team_name(number: int) -> str:
    """Return a team's name as an attacker would choose it."""
    return f"Команда '{number}\" | `x`; --"


def find(quick: bool) -> Finding:
    """Log, and count.

    Args:
        quick: whether to use only 4 teams with 5 runs each.
    """
    teams, runs = (4, 5) if quick else (TEAMS, RUNS)
    with _server() as (server, name):
        counts = load(server, teams, runs)
    rows: list[dict[str, Cell]] = [{"teams": teams, "runs each": runs, "database": name, **counts}]
    met = not (counts["lost"] or counts["twice"] or counts["mixed up"] or counts["stuck"] or counts["not sent"])
    notes = [] if name == "postgresql" else ["PostgreSQL is not installed (apt-get install postgresql)."]
    return Finding("load", "nothing lost, nothing twice, no team's name in another team's row", met, rows, notes)


def load(server: TrackingServer, teams: int, runs: int) -> dict[str, Cell]:
    """Make teams log runs at once, and count the results.

    Args:
        server: an empty tracking server, started.
        teams: number of teams, four per process, each in its own thread.
        runs: number of runs of each team.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mlflow", "mlflow_compress.tracking.log", "mlflow_compress.tracking.sync", "benchmarks.load"]
    )
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        shares = [range(start, min(start + PER_PROCESS, teams)) for start in range(0, teams, PER_PROCESS)]
        processes = [context.Process(target=_log_all, args=(server.uri, Path(name), share, runs)) for share in shares]
        started = time.monotonic()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds = time.monotonic() - started
        left = len(list(Path(name).glob("spool-*/*/address.json")))
    return {
        **_count(server.database, teams, runs),
        "not sent": left + sum(process.exitcode != 0 for process in processes),
        "seconds": round(seconds, 1),
        "runs per second": round(teams * runs / seconds, 1),
    }


def _log_all(uri: str, folder: Path, share: range, runs: int) -> None:
    import os

    os.environ.clear()
    os.environ.update(environment(folder, MLFLOW_TRACKING_URI=uri, MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true"))
    with ThreadPoolExecutor(len(share)) as pool:
        list(pool.map(lambda number: _log(uri, folder, number, runs), share))


def _log(uri: str, folder: Path, number: int, runs: int) -> None:
    from mlflow_compress.records import Outcome, Result, Step, Variant
    from mlflow_compress.tracking.connection import lasting, open_store
    from mlflow_compress.tracking.sending import send
    from mlflow_compress.tracking.spool import Address, Shipment, Spool

    store, spool, team = open_store(uri), Spool(folder / f"spool-{number}"), team_name(number)
    address = Address(lasting(uri), _EXPERIMENT, {"team": team}, with_model=False)
    for index in range(runs):
        variant = Variant(f"model {index}", "original", team, "python", "small.py", chain=(Step("original"),))
        now = time.time()
        numbers = {f"cpu/number_{metric}": float(number * 1000 + index) for metric in range(_METRICS)}
        samples = {"cpu/others_ms": [float(number)] * 100}  # no plots: the load is for the server
        result = Result(
            variant, "ok", measurements=numbers, samples=samples, outcomes={"cpu": Outcome("ok")},
            started_s=now - 1, ended_s=now,
        )  # fmt: skip
        entry = spool.begin()
        send(store, Shipment(entry, result, address, print).keep())
        entry.remove()


def _count(database: str, teams: int, runs: int) -> dict[str, Cell]:
    """Count runs and numbers in the database itself."""
    logged = _select(database, _RUNS_BY_TEAM)
    names = [team_name(number) for number in range(teams)]
    finished = [run for run in logged if run["status"] == "FINISHED" and run["logged"] == "complete"]
    by_team = {name: sum(run["team"] == name for run in finished) for name in names}
    values: dict[str, list[float]] = {}
    for number in _select(database, _NUMBERS):
        values.setdefault(number["run_uuid"], []).append(number["value"])
    mixed = sum(run["team"] != run["param_team"] or run["team"] not in by_team for run in logged)
    for run in finished:
        of_team = {value // 1000 for value in values.get(run["run_uuid"], [])}
        mixed += of_team != {float(names.index(run["team"]))} or len(set(values[run["run_uuid"]])) != 1
    counts = [len(values.get(run["run_uuid"], [])) for run in finished]
    return {
        "runs": len(logged),
        "numbers": sum(counts),
        "lost": sum(max(0, runs - count) for count in by_team.values()) + sum(count < _METRICS for count in counts),
        "twice": len(logged) - len({run["result_id"] for run in logged}) + sum(count > _METRICS for count in counts),
        "mixed up": mixed,
        "stuck": sum(run["status"] == "RUNNING" for run in logged),
    }


def _select(database: str, query: str) -> list[Any]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(database)
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(query)).mappings()]
    finally:
        engine.dispose()


@contextlib.contextmanager
def _server() -> Iterator[tuple[TrackingServer, str]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-server-")))
        name = "sqlite" if postgres_folder() is None else "postgresql"
        if name == "sqlite":
            database = f"sqlite:///{folder / 'mlflow.db'}"
        else:
            database = make_database(stack.enter_context(postgres()), "mlflow")
        server = TrackingServer(folder, database, workers=2)
        server.start()
        stack.callback(server.kill)
        yield server, name
