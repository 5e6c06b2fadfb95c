"""Cost of one whole `compress-bench run` compared with the shortest honest script that does the same work.

Both build DistilBERT with random weights, save it, restore it in a new process, warm up, time as many calls, and log
the same numbers, samples and the model to an MLflow store in SQLite. The script is `programs/by_hand.py`. It makes as
many warm-up calls as our run. Both stores exist before, since creating their tables takes seconds. Energy is left out,
since its duration is an option.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.children import PROGRAMS, Ended, run
from benchmarks.finding import Cell, Finding

_GOAL = 1.25
_CALLS = 50
_OPEN = "import mlflow; mlflow.MlflowClient().search_experiments()"


def find(quick: bool) -> Finding:
    """Run both in turns."""
    rows: list[dict[str, Cell]] = []
    ratios: dict[str, list[float]] = {"wall": [], "CPU": []}
    calls = 6 if quick else _CALLS
    with tempfile.TemporaryDirectory() as name:
        folders = {"ours": Path(name, "ours"), "by hand": Path(name, "by hand")}
        for folder in folders.values():
            folder.mkdir()
            run([sys.executable, "-c", _OPEN], folder, _environment(folder))
        warmup = 6  # for a script that runs before our first run
        for number in range(1, (1 if quick else 2) + 1):
            ours_first = number % 2 == 1
            if ours_first:
                ours, warmup = _ours(folders["ours"], calls)
            by_hand = _by_hand(folders["by hand"], warmup, calls)
            if not ours_first:
                ours, warmup = _ours(folders["ours"], calls)
            ratios["wall"].append(ours.wall_s / by_hand.wall_s)
            ratios["CPU"].append(ours.cpu_s / by_hand.cpu_s)
            row: dict[str, Cell] = {
                "round": f"{number}, {'ours' if ours_first else 'by hand'} first",
                "our wall s": ours.wall_s,
                "by hand wall s": by_hand.wall_s,
                "wall ratio": ratios["wall"][-1],
                "our CPU s": ours.cpu_s,
                "by hand CPU s": by_hand.cpu_s,
                "CPU ratio": ratios["CPU"][-1],
            }
            rows.append(row)
    middles = {name: statistics.median(values) for name, values in ratios.items()}
    rows.append({"round": "median", **{f"{what} ratio": middle for what, middle in middles.items()}})
    return Finding(
        name="overhead",
        goal=f"wall and CPU time are at most {_GOAL} times those of the script (median of the rounds).",
        met=max(middles.values()) <= _GOAL,
        rows=rows,
        notes=[f"{calls} timed calls; CPU is user and system time with all child processes, from wait4"],
    )


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with a separate store."""
    return {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}


def _ours(folder: Path, calls: int) -> tuple[Ended, int]:
    """Run the tool, and return its cost and its number of warm-up calls."""
    options = ["--weights", "random", "--device", "cpu", "--iterations", str(calls), "--seconds", "0"]
    options += ["--max-seconds", "3600", "--energy-seconds", "0", "--launches", "1", "--quiet", "--json"]
    command = [Path(sys.executable).parent / "compress-bench", "run", "distilbert", *options]
    ended = run(command, folder, _environment(folder))
    [result] = json.loads(ended.output)
    if result["measurements"]["cpu/latency_count"] != calls:
        raise RuntimeError(f"{result['measurements']['cpu/latency_count']} calls were timed, not {calls}")
    return ended, int(result["measurements"]["cpu/warmup_count"])


def _by_hand(folder: Path, warmup: int, calls: int) -> Ended:
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, PROGRAMS / "by_hand.py", work, str(warmup), str(calls)]
        return run(command, folder, _environment(folder))
