"""Time for a table of many runs: the whole `compress-report` compared with `mlflow.search_runs` alone and with raw SQL.

Both sides run in turns, each in its own process, including imports. Ours reads, compares and writes a CSV file; the
other side only reads. `programs/filled_store.py` fills the stores like the tool: 25 metrics, 15 params, 12 tags per
run.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.children import PROGRAMS, Ended, run
from benchmarks.finding import Cell, Finding

_MOST_OF_SEARCH, _MOST_OF_SQL, _FEW_SECONDS, _MOST_MIB = 0.35, 3.0, 2.0, 1024.0
_RUNS, _MANY = 10_000, 100_000
_TEAM = "team 7"
_PORT = "5817"
_START_SECONDS = 240
_PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "900"}  # search_runs over all runs of a busy server exceeds the default


def find(quick: bool) -> Finding:
    """Fill two stores and read them."""
    few, many = (_RUNS // 100, _MANY // 100) if quick else (_RUNS, _MANY)
    rounds = 1 if quick else 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = (_filled(folder / f"{count}.db", count) for count in (few, many))
        rows = [_compared(f"{few} runs, SQLite", _report(small), _searched(small), folder, rounds)]
        for setting, arguments in (("with --app-name compress", ["--app-name", "compress"]), ("as it is", [])):
            with _served(small, folder, arguments) as address:
                turns = rounds if arguments else 1
                row = _compared(
                    f"{few} runs, mlflow server {setting}", _report(address), _searched(address), folder, turns
                )
                rows.append(row)
        team = [sys.executable, PROGRAMS / "raw_sql.py", large.removeprefix("sqlite:///"), _TEAM]
        rows.append(
            _compared(f"one team of {many} runs, SQLite", _report(large, "--team", _TEAM), team, folder, rounds)
        )
        full_report = run(_report(large), folder)
        rows.append(
            {"what": f"all of {many} runs, SQLite", "ours s": full_report.wall_s, "ours peak MiB": full_report.peak_mib}
        )
    ratios = [rows[index]["ratio"] for index in (0, 1, 3)]
    team_s = rows[3]["ours s"]
    assert all(isinstance(value, float) for value in (*ratios, team_s))
    met = (
        all(float(ratio or 0) <= _MOST_OF_SEARCH for ratio in ratios[:2])
        and (float(ratios[2] or 0) <= _MOST_OF_SQL or float(team_s or 0) <= _FEW_SECONDS)
        and (full_report.peak_mib or 0) <= _MOST_MIB
    )
    return Finding(
        name="report_scale",
        goal=f"{few} runs in at most {_MOST_OF_SEARCH} of the time of mlflow.search_runs, on SQLite and from a server "
        f"with our page; one team of {many} in at most {_MOST_OF_SQL:g} times that of raw SQL, or {_FEW_SECONDS:g} s; "
        f"all of {many} in at most {_MOST_MIB:.0f} MiB.",
        met=met,
        rows=rows,
        notes=[
            "wall seconds of processes, median of the rounds; the other side is search_runs, for the team raw SQL",
            "without our page, the server spends most of the time on its answer",
        ],
    )


def _report(uri: str, *arguments: str) -> list[object]:
    program = Path(sys.executable).parent / "compress-report"
    return [program, "--tracking-uri", uri, "-e", "scale", "-o", "table.csv", *arguments]


def _searched(uri: str) -> list[object]:
    return [sys.executable, PROGRAMS / "search_runs.py", uri]


def _compared(
    description: str, ours: Sequence[object], theirs: Sequence[object], folder: Path, rounds: int
) -> dict[str, Cell]:
    own: list[Ended] = []
    theirs_ended: list[Ended] = []
    for turn in range(rounds):
        pair = [(ours, own), (theirs, theirs_ended)]
        for command, ended in pair if turn % 2 else pair[::-1]:
            ended.append(run(command, folder, {**os.environ, **_PATIENT}))
    wall, their_wall = (statistics.median(ended.wall_s for ended in side) for side in (own, theirs_ended))
    return {
        "what": description,
        "ours s": wall,
        "other s": their_wall,
        "ratio": wall / their_wall,
        "ours CPU s": statistics.median(ended.cpu_s for ended in own),
        "other CPU s": statistics.median(ended.cpu_s for ended in theirs_ended),
        "ours peak MiB": max((ended.peak_mib or 0) for ended in own) or None,
        "other peak MiB": max((ended.peak_mib or 0) for ended in theirs_ended) or None,
    }


def _filled(file: Path, runs: int) -> str:
    run([sys.executable, PROGRAMS / "filled_store.py", file, runs], file.parent)
    return f"sqlite:///{file}"


@contextlib.contextmanager
def _served(uri: str, folder: Path, arguments: Sequence[str]) -> Iterator[str]:
    """Serve a store with MLflow's server."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", _PORT, "--workers", "1"]
    command += arguments
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{_PORT}"
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(_START_SECONDS):
            time.sleep(1)
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=1).close()  # noqa: S310  (our own address)
                break
        yield address
    finally:
        server.terminate()
        server.wait()
