"""Our median latency against a bare loop over the same saved model, in turns.

The model is prepared once. Then the worker, started as the tool starts it, and a bare loop in a process of its own
measure it alternately, with the same environment, threads and batch, after equally many calls of warm-up. Which of the
two comes first changes from round to round, so that a machine that grows slower favours neither.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.children import PROGRAMS, measure, measuring_environment, plan, prepare, run
from benchmarks.finding import Cell, Finding
from mlflow_compress.records import Variant

_TOLERANCE = 0.02
_ROUNDS, _QUICK_ROUNDS = 4, 2
_MODELS: dict[str, tuple[int, dict[str, str]]] = {  # timed calls, options
    "yolo11n": (60, {}),
    "distilbert": (60, {}),
    "llama": (20, {"new_tokens": "8"}),
}


def find(quick: bool) -> Finding:
    """Measure each model in turns."""
    rows: list[dict[str, Cell]] = []
    middles, notes = [], []
    for model, (calls, options) in list(_MODELS.items())[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            variant = plan(model, 6 if quick else calls, options=options)
            prepare(variant, Path(folder))
            found, threads = _rounds(variant, Path(folder), _QUICK_ROUNDS if quick else _ROUNDS)
        rows += found
        middles.append(statistics.median(_number(row, "ours / bare") for row in found))
        bare = [_number(row, "bare loop p50 ms") for row in found]
        rows.append({"model": model, "round": "median", "ours / bare": middles[-1]})
        notes.append(
            f"{model}: {variant.budget.min_iterations} calls, {threads} threads; between rounds the bare loop differs "
            f"from itself by {max(bare) / min(bare) - 1:.1%}"
        )
    return Finding(
        name="fidelity_latency",
        goal=f"the median over the rounds of our p50 over the bare loop's differs from 1 by at most {_TOLERANCE:.0%}.",
        met=all(abs(middle - 1) <= _TOLERANCE for middle in middles),
        rows=rows,
        notes=notes,
    )


def _rounds(variant: Variant, folder: Path, rounds: int) -> tuple[list[dict[str, Cell]], int]:
    """Give the rounds' rows, and the number of threads that both had.

    Raises:
        RuntimeError: the two did not have the same number of threads.
    """
    part = measure(variant, folder)  # not counted: it fills the disk cache, and says how much warm-up is needed
    warmup, rows = part.measurements["cpu/warmup_count"], []
    for number in range(1, rounds + 1):
        ours_first = number % 2 == 1
        if ours_first:
            part = measure(variant, folder)
            warmup = part.measurements["cpu/warmup_count"]
        bare = _bare(variant, folder, int(warmup))
        if not ours_first:
            part = measure(variant, folder)
        if (threads := int(part.environment["threads"])) != bare["threads"]:
            raise RuntimeError(f"the worker has {threads} threads, and the bare loop {bare['threads']}")
        ours_ms = part.measurements["cpu/latency_p50_ms"]
        row: dict[str, Cell] = {
            "model": variant.model,
            "round": f"{number}, {'ours' if ours_first else 'bare'} first",
            "our p50 ms": ours_ms,
            "bare loop p50 ms": bare["p50_ms"],
            "ours / bare": ours_ms / bare["p50_ms"],
        }
        rows.append(row)
    return rows, threads


def _bare(variant: Variant, folder: Path, warmup: int) -> dict[str, float]:
    calls = variant.budget.min_iterations
    command = [sys.executable, PROGRAMS / "bare_loop.py", folder, str(warmup), str(calls)]
    found: dict[str, float] = json.loads(run(command, folder, measuring_environment(variant)).output)
    return found


def _number(row: dict[str, Cell], column: str) -> float:
    value = row[column]
    assert isinstance(value, float)
    return value
