"""The same model under optimum-benchmark, beside ours: wall time, and the errors of latency and memory.

optimum-benchmark lives in a virtual environment of its own, as it wants an older transformers. BERT base with random
weights, 128 tokens, batch 1, on the CPU, latency and memory, as many calls. Each tool is held against outside truth of
its own versions: a bare loop for latency, in turns with it; for memory the kernel's peak. Of optimum-benchmark that is
`ru_maxrss` of all its processes (it resets nothing); of ours what `fidelity_memory` finds.

Wall time is the whole command: of ours `compress-bench run` without logging the model, as the peer stores none. Ours
makes, saves and sizes the model in that time too; the peer's was saved before.
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
    "why optimum-benchmark's latency is far from the bare loop's was not found: it says nothing of that tool",
    "our latency error is the middle of few rounds: see how far they lie apart",
)


def find(quick: bool, venv: Path | None = None) -> Finding:
    """Run both in turns.

    Args:
        quick: few calls, one round.
        venv: a virtual environment with optimum-benchmark; None makes one, which downloads gigabytes.
    """
    calls, rounds = (6, 1) if quick else (_CALLS, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = (venv.absolute() if venv else _made(folder / "venv")) / "bin" / "python"
        _peer(python, folder, "make", str(folder / "bert"))
        found = [(_theirs(python, folder, calls), _ours(folder, calls)) for _ in range(rounds)]
    theirs, ours = ([each[who] for each in found] for who in (0, 1))
    rows: list[dict[str, Cell]] = [
        {"tool": tool, "round": str(number), **row}
        for tool, every in (("optimum-benchmark", theirs), ("mlflow-compress", ours))
        for number, row in enumerate(every, 1)
    ]
    wall, latency, memory = (
        (_middle(ours, what), _middle(theirs, what)) for what in ("wall s", "latency error", "RAM error")
    )
    rows += [
        {
            "tool": tool,
            "round": "median",
            "wall s": wall[who],
            "latency error": latency[who],
            "RAM error": memory[who],
        }
        for who, tool in ((1, "optimum-benchmark"), (0, "mlflow-compress"))
    ]
    return Finding(
        name="peer",
        goal=f"less than {_WALL_SHARE:.0%} of optimum-benchmark's wall time, and smaller errors of latency and memory.",
        met=wall[0] < _WALL_SHARE * wall[1] and latency[0] < latency[1] and memory[0] < memory[1],
        rows=rows,
        notes=[
            f"{', '.join(_REQUIREMENTS)}; {calls} calls; errors are relative, and their medians of the size alone",
            *_NOT_SHOWN,
        ],
    )


def _theirs(python: Path, folder: Path, calls: int) -> dict[str, float]:
    counts = [str(folder / "bert"), str(_WARMUP), str(calls)]
    work = Path(tempfile.mkdtemp(dir=folder))
    found, wall, peak = _peer(python, work, "measure", *counts)
    if found["count"] != calls:
        raise RuntimeError(f"optimum-benchmark timed {found['count']} calls, not {calls}")
    bare, _, _ = _peer(python, work, "bare", *counts)
    return _row(wall, found["p50_ms"], bare["p50_ms"], found["ram_mib"], peak)


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


def _middle(rows: Sequence[dict[str, float]], what: str) -> float:
    return statistics.median(abs(row[what]) for row in rows)


def _peer(python: Path, folder: Path, *arguments: str) -> tuple[Any, float, float]:
    """Run the peer's program: give what it printed, its wall time in seconds, and its peak in MiB."""
    ended = run([python, PROGRAMS / "peer.py", *arguments], folder, {**os.environ, "HF_HUB_OFFLINE": "1"})
    assert ended.peak_mib is not None
    return json.loads(ended.output or "null"), ended.wall_s, ended.peak_mib


def _made(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *_REQUIREMENTS], check=True)
    return folder
