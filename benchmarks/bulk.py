"""Time to rescore many predictions, and to import many rows of a hand-made table.

Each command runs in its own process, including imports. Labels of ten classes are scored by accuracy and F1 with
intervals; each table goes into its own SQLite store.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.children import run
from benchmarks.finding import Cell, Finding

_SIZES = {"predictions": (20_000, 200_000, 2_000_000), "rows": (100, 300, 1000)}
_MOST_GROWTH = 1.5  # of the time per item, from the second size to the third


def find(quick: bool) -> Finding:
    """Measure both at three sizes."""
    rows: list[dict[str, Cell]] = []
    growths = []
    measures: dict[str, Callable[[Path, int], Sequence[object]]] = {"predictions": _rescore, "rows": _import}
    for kind, command in measures.items():
        seconds = []
        sizes = [size // 100 for size in _SIZES[kind]] if quick else _SIZES[kind]
        for count in sizes:
            with tempfile.TemporaryDirectory() as name:
                ended = run(command(Path(name), count), Path(name))
            seconds.append(ended.cpu_s)
            rows.append(
                {
                    "what": f"{count:,} {kind}",
                    "seconds": ended.wall_s,
                    "CPU seconds": ended.cpu_s,
                    "peak MiB": ended.peak_mib,
                }
            )
        increments = [
            (seconds[index + 1] - seconds[index]) / (sizes[index + 1] - sizes[index])  # without the start-up time
            for index in (0, 1)
        ]
        growths.append(increments[1] / max(increments[0], 1e-9))
        rows[-1]["one more takes"] = f"{growths[-1]:.2f}x as long"
    return Finding(
        name="bulk",
        goal=f"for ten times as many items, the time per item grows at most {_MOST_GROWTH:g} times.",
        met=max(growths) <= _MOST_GROWTH,
        rows=rows,
        notes=["one process each; growth is that of CPU seconds, since a store waits for the disk most of the time"],
    )


def _rescore(folder: Path, count: int) -> Sequence[object]:
    draw = random.Random(0)  # noqa: S311  (labels)
    data = [[draw.randrange(10), draw.randrange(10)] for _ in range(count)]
    path = folder / "predictions.json"
    path.write_text(json.dumps({"columns": ["reference", "prediction"], "data": data}), encoding="utf-8")
    return [Path(sys.executable).parent / "compress-bench", "rescore", path, "--metric", "accuracy", "--metric", "f1"]


def _import(folder: Path, count: int) -> Sequence[object]:
    lines = [f"| model {row // 10} | method {row % 10} | {row + 1} MB | {row + 2} ms |" for row in range(count)]
    path = folder / "table.md"
    path.write_text("\n".join(["| Model | Method | Size | CPU time |", "|---|---|---|---|", *lines]), encoding="utf-8")
    uri = f"sqlite:///{folder / 'store.db'}"
    program = Path(sys.executable).parent / "compress-report"
    return [program, "import", path, "-e", "bulk", "--team", "t", "--tracking-uri", uri]
