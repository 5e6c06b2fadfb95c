"""The same model under optimum-benchmark and under this package: wall time, and the errors of latency and memory.

optimum-benchmark runs in its own virtual environment, since it requires an older transformers. Both measure latency and
memory of BERT base with random weights, 128 tokens, batch 1, on the CPU, with as many calls. Each tool is compared with
an independent reference for its own versions: a bare loop for latency, in turns with it, and the kernel's peak for
memory. For optimum-benchmark that is `ru_maxrss` of all its processes (it resets nothing), for ours the figure of
`fidelity_memory`.

Wall time is that of the whole command: for ours `compress-bench run` without logging the model, since the peer stores
none. It includes building and saving the model and measuring its size; the peer's model was saved before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.children import PROGRAMS, measure, measuring_environment, plan, prepare, run
from benchmarks.fidelity_memory import watched
from benchmarks.finding import Cell, Finding

_REQUIREMENTS = ("optimum-benchmark==0.6.0", "transformers==4.57.6", "datasets<4.5")
_WARMUP, _CALLS = 10, 50
_WALL_SHARE = 0.5
_NOT_SHOWN = (
    "why optimum-benchmark's latency differs from the bare loop's was not found: do not judge that tool by it",
    "our latency error is the median of a few rounds: look at their spread",
)


def find(quick: bool, venv: Path | None = None) -> Finding:
    """Run both in turns.

    Args:
        quick: whether to run only one round with few calls.
        venv: a virtual environment with optimum-benchmark; None: create one, which downloads gigabytes.
    """
    calls, rounds = (6, 1) if quick else (_CALLS, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = (venv.absolute() if venv else _installed(folder / "venv")) / "bin" / "python"
        _peer(python, folder, "make", str(folder / "bert"))
        pairs = [(_theirs(python, folder, calls), _ours(folder, calls)) for _ in range(rounds)]
    theirs, ours = ([pair[side] for pair in pairs] for side in (0, 1))
    rows: list[dict[str, Cell]] = [
        {"tool": tool, "round": str(number), **row}
        for tool, results in (("optimum-benchmark", theirs), ("mlflow-compress", ours))
        for number, row in enumerate(results, 1)
    ]
    wall, latency, memory = (
        (_middle(ours, column), _middle(theirs, column)) for column in ("wall s", "latency error", "RAM error")
    )
    rows += [
        {
            "tool": tool,
            "round": "median",
            "wall s": wall[side],
            "latency error": latency[side],
            "RAM error": memory[side],
        }
        for side, tool in ((1, "optimum-benchmark"), (0, "mlflow-compress"))
    ]
    return Finding(
        name="peer",
        goal=f"less than {_WALL_SHARE:.0%} of optimum-benchmark's wall time, and smaller errors of latency and memory.",
        met=wall[0] < _WALL_SHARE * wall[1] and latency[0] < latency[1] and memory[0] < memory[1],
        rows=rows,
        notes=[
            f"{', '.join(_REQUIREMENTS)}; {calls} calls; errors are relative, and their medians ignore the sign",
            *_NOT_SHOWN,
        ],
    )


def _theirs(python: Path, folder: Path, calls: int) -> dict[str, float]:
    counts = [str(folder / "bert"), str(_WARMUP), str(calls)]
    work = Path(tempfile.mkdtemp(dir=folder))
    result, wall, peak = _peer(python, work, "measure", *counts)
    if result["count"] != calls:
        raise RuntimeError(f"optimum-benchmark timed {result['count']} calls, not {calls}")
    bare, _, _ = _peer(python, work, "bare", *counts)
    return _row(wall, result["p50_ms"], bare["p50_ms"], result["ram_mib"], peak)


def _ours(folder: Path, calls: int) -> dict[str, float]:
    work = Path(tempfile.mkdtemp(dir=folder))
    command: list[object] = [Path(sys.executable).parent / "compress-bench", "run", "bert_base"]
    command += ["--weights", "random", "--device", "cpu", "--iterations", str(calls), "--seconds", "0"]
    command += ["--energy-seconds", "0", "--launches", "1", "--no-log-model", "--quiet"]
    store = f"sqlite:///{work / 'mlflow.db'}"
    wall = run(command, work, {**os.environ, "MLFLOW_TRACKING_URI": store}).wall_s

    variant = plan("bert_base", calls)
    prepare(variant, work)
    part = measure(variant, work)
    warmup = f"{part.measurements['cpu/warmup_count']:.0f}"
    loop = [sys.executable, PROGRAMS / "bare_loop.py", work, warmup, str(calls)]
    bare = json.loads(run(loop, work, measuring_environment(variant)).output)
    numbers, outside = watched(variant, work)
    p50 = part.measurements["cpu/latency_p50_ms"]
    return _row(wall, p50, bare["p50_ms"], numbers["cpu/ram_peak_mib"], outside)


def _row(wall_s: float, p50_ms: float, bare_ms: float, ram_mib: float, outside_mib: float) -> dict[str, float]:
    return {
        "wall s": wall_s,
        "p50 ms": p50_ms,
        "bare p50 ms": bare_ms,
        "latency error": p50_ms / bare_ms - 1,
        "RAM MiB": ram_mib,
        "outside MiB": outside_mib,
        "RAM error": ram_mib / outside_mib - 1,
    }


def _middle(rows: Sequence[dict[str, float]], column: str) -> float:
    return statistics.median(abs(row[column]) for row in rows)


def _peer(python: Path, folder: Path, *arguments: str) -> tuple[Any, float, float]:
    """Run the peer's program; return its output, its wall time in seconds, and its peak in MiB."""
    ended = run([python, PROGRAMS / "peer.py", *arguments], folder, {**os.environ, "HF_HUB_OFFLINE": "1"})
    assert ended.peak_mib is not None
    return json.loads(ended.output or "null"), ended.wall_s, ended.peak_mib


def _installed(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *_REQUIREMENTS], check=True)
    return folder
