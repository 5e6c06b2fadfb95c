"""Time of the commands' `--help`, compared with an interpreter that only imports click."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.children import run
from benchmarks.finding import Cell, Finding

_GOAL_SECONDS = 0.25


def find(quick: bool) -> Finding:
    """Start each command many times, in turn."""
    installed = Path(sys.executable).parent
    commands: dict[str, list[object]] = {
        'python -c "import click"': [sys.executable, "-c", "import click"],
        "compress-bench --help": [installed / "compress-bench", "--help"],
        "compress-report --help": [installed / "compress-report", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(4 if quick else 21):
            for name, command in commands.items():
                wall = run(command, Path(folder)).wall_s
                if turn:  # the first turn fills the disk cache
                    seconds[name].append(wall)
    rows: list[dict[str, Cell]] = [
        {"command": name, "median s": statistics.median(times), "fastest s": min(times), "slowest s": max(times)}
        for name, times in seconds.items()
    ]
    slowest = max(statistics.median(times) for name, times in seconds.items() if name.startswith("compress"))
    return Finding(
        name="startup",
        goal=f"both commands print their help within {_GOAL_SECONDS} s (median).",
        met=slowest <= _GOAL_SECONDS,
        rows=rows,
    )
