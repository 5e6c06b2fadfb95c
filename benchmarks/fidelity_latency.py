"""Our median latency compared with a bare loop over the same saved model, in turns.

The model is prepared once, and then timed twice:

* in one process, where the tool's meter and a bare loop take turns of half a second, or three calls. The goal applies
  here: measuring must add nothing;
* in two processes, where the worker, started like the tool does, takes turns with a bare loop in its own process, with
  the same environment, threads and batch. This is how a run measures. Even two processes of the same program differ
  permanently, by their memory layout; so there is no goal for it.

Each round gives one ratio, so that a slower or disturbed machine favours neither side.

The inputs are small, so that a turn has many calls and a robust median. Both sides use one thread: two threads wait for
each other, and on a machine with two cores any other program makes single calls several times longer, on one side or
the other. Both keep freed memory. Otherwise it depends on the heap layout whether glibc returns large buffers to the
kernel, and a call of yolo11n takes 113 ms in one process and 153 ms in the next process of the same program.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.children import PROGRAMS, measuring_environment, plan, prepare, run
from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring.interleave import Turns, rounds_of
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.percentiles import interval, percentile
from mlflow_compress.records import Variant, write_json

_TOLERANCE = 0.02
_SECONDS = {1: 45.0, 2: 10.0}  # for the rounds of each model, by the number of processes
_QUICK_SECONDS = 5.0
_ROUND_MS = 500.0
_FEWEST_ROUNDS = 4
_WARMUP = 6  # the tool's minimum
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36)}  # Source: mallopt(3)
_MODELS: dict[str, dict[str, str]] = {
    "yolo11n": {"image_size": "320"},
    "distilbert": {"tokens": "32"},
    "llama": {"prompt_tokens": "8", "new_tokens": "2"},
}


def find(quick: bool) -> Finding:
    """Measure each model in turns."""
    rows: list[dict[str, Cell]] = []
    os.environ.update(_KEEP_MEMORY)
    for model, options in list(_MODELS.items())[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            variant = dataclasses.replace(plan(model, 6, options=options), interleave=True, threads=1)
            prepare(variant, Path(folder))
            write_json(Path(folder) / "variant.json", variant)
            for processes, compare in ((1, _in_one), (2, _in_two)):
                seconds = _QUICK_SECONDS if quick else _SECONDS[processes]
                rows.append({"model": model, "processes": processes, **compare(variant, Path(folder), seconds)})
    return Finding(
        name="fidelity_latency",
        goal=f"in one process, the median over the rounds of our p50 over the bare loop's differs from 1 by at most "
        f"{_TOLERANCE:.0%}.",
        met=all(_is_near(row["ours / bare"]) for row in rows if row["processes"] == 1),
        rows=rows,
        notes=notes(rows),
    )


def notes(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Return notes on what the rows show, and what they do not show."""
    own = [row for row in rows if row["processes"] == 1]
    near_count = sum(_is_near(row["low"]) and _is_near(row["high"]) for row in own)
    return [
        "low and high: the 95 % interval of that median; a round is one turn of each side, with equally many calls",
        f"the goal is about the median of noisy rounds; for {near_count} of {len(own)} models the whole interval shows "
        f"that both sides are equal within {_TOLERANCE:.0%}",
        "rows of two processes have no goal",
    ]


def _is_near(ratio: Cell) -> bool:
    return isinstance(ratio, float) and abs(ratio - 1) <= _TOLERANCE


def _in_one(variant: Variant, folder: Path, seconds: float) -> dict[str, Cell]:
    """Run the rounds of the meter and the bare loop in one process."""
    command = [sys.executable, PROGRAMS / "one_process.py", folder, seconds]
    result = json.loads(run(command, folder, measuring_environment(variant)).output)
    return _compared(result["ours"], result["bare"], result["calls"])


def _in_two(variant: Variant, folder: Path, seconds: float) -> dict[str, Cell]:
    """Run the rounds of the worker and the bare loop in two processes.

    Raises:
        RuntimeError: the two had different numbers of threads.
    """
    with Worker("measure", variant, folder, "cpu") as worker, _bare(variant, folder) as loop:
        own_turns = Turns(worker, lambda event: None)
        own_turns.wait()
        own_turns.warm_up()
        bare: list[dict[str, float]] = []
        own_turns.go(_ROUND_MS)  # not counted: it determines the number of calls in a round
        size = own_turns.count
        turns: list[Callable[[], object]] = [lambda: own_turns.go(_ROUND_MS), lambda: bare.append(_turn(loop, size))]
        _turn(loop, size)
        ends = time.monotonic() + seconds
        while len(bare) < _FEWEST_ROUNDS or time.monotonic() < ends:
            for turn in turns if len(bare) % 2 else reversed(turns):
                turn()
        own_turns.finish()
        part = worker.part()
    if (threads := int(part.environment["threads"])) != bare[0]["threads"]:
        raise RuntimeError(f"the worker has {threads} threads, and the bare loop {bare[0]['threads']}")
    own_ms = [percentile(calls, 50) for calls in rounds_of(part.samples, "cpu")][1:]
    return _compared(own_ms, [turn_result["p50_ms"] for turn_result in bare], size)


def _compared(own_ms: list[float], bare_ms: list[float], calls: int) -> dict[str, Cell]:
    ratios = [own / bare for own, bare in zip(own_ms, bare_ms, strict=True)]
    low, high = interval(ratios, 50) or (None, None)
    return {
        "rounds": len(ratios),
        "calls in each": calls,
        "our p50 ms": statistics.median(own_ms),
        "bare loop p50 ms": statistics.median(bare_ms),
        "ours / bare": statistics.median(ratios),
        "low": low,
        "high": high,
    }


def _bare(variant: Variant, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, PROGRAMS / "bare_loop.py", folder, str(_WARMUP), "turns"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=measuring_environment(variant),
    )


def _turn(loop: subprocess.Popen[str], calls: int) -> dict[str, float]:
    assert loop.stdin is not None
    assert loop.stdout is not None
    loop.stdin.write(f"{calls}\n")
    loop.stdin.flush()
    result: dict[str, float] = json.loads(loop.stdout.readline())
    return result
