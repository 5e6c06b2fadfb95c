"""Our median latency against a bare loop over the same saved model, in turns.

The model is prepared once, and then timed twice:

* in one process, where the tool's meter and a bare loop make their calls in turns of half a second, or three calls:
  this is what the goal is about, that measuring adds nothing;
* in two processes, where the worker, started as the tool starts it, takes turns with a bare loop in a process of its
  own, with the same environment, threads and batch: as a run is. Two processes of the very same program differ too,
  lastingly, by where their memory came to lie; so there is no goal for that.

Each round gives one ratio, so that a machine that grows slower, or is disturbed, favours neither.

The inputs are small, so that a turn has many calls, whose median is little disturbed. Each has one thread: two threads
wait for each other, and on a machine with two cores whatever else runs makes a call several times longer, now of the
one side and now of the other. And all are told to keep freed memory. Else glibc gives large buffers back to the kernel
or not by where the heap happens to lie, and one process makes a call of yolo11n in 113 ms and the next, the same
program, in 153.
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
_WARMUP = 6  # the fewest that the tool makes
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
    """Say what the rows show, and what they do not."""
    own = [row for row in rows if row["processes"] == 1]
    shown = sum(_is_near(row["low"]) and _is_near(row["high"]) for row in own)
    return [
        "low and high: the 95 % interval of that median; a round is a turn of each, of as many calls",
        f"the goal is about the middle of noisy rounds; that the two are equal within {_TOLERANCE:.0%}, with the whole "
        f"interval, is shown of {shown} of {len(own)} models",
        "rows of two processes have no goal",
    ]


def _is_near(ratio: Cell) -> bool:
    return isinstance(ratio, float) and abs(ratio - 1) <= _TOLERANCE


def _in_one(variant: Variant, folder: Path, seconds: float) -> dict[str, Cell]:
    """Let the meter and the bare loop make their rounds in one process."""
    command = [sys.executable, PROGRAMS / "one_process.py", folder, seconds]
    found = json.loads(run(command, folder, measuring_environment(variant)).output)
    return _compared(found["ours"], found["bare"], found["calls"])


def _in_two(variant: Variant, folder: Path, seconds: float) -> dict[str, Cell]:
    """Let the worker and the bare loop make their rounds.

    Raises:
        RuntimeError: the two did not have the same number of threads.
    """
    with Worker("measure", variant, folder, "cpu") as worker, _bare(variant, folder) as loop:
        ours = Turns(worker, lambda event: None)
        ours.wait()
        ours.warm_up()
        bare: list[dict[str, float]] = []
        ours.go(_ROUND_MS)  # not counted: it says how many calls a round has
        size = ours.count
        turns: list[Callable[[], object]] = [lambda: ours.go(_ROUND_MS), lambda: bare.append(_turn(loop, size))]
        _turn(loop, size)
        ends = time.monotonic() + seconds
        while len(bare) < _FEWEST_ROUNDS or time.monotonic() < ends:
            for turn in turns if len(bare) % 2 else reversed(turns):
                turn()
        ours.finish()
        part = worker.part()
    if (threads := int(part.environment["threads"])) != bare[0]["threads"]:
        raise RuntimeError(f"the worker has {threads} threads, and the bare loop {bare[0]['threads']}")
    own_ms = [percentile(each, 50) for each in rounds_of(part.samples, "cpu")][1:]
    return _compared(own_ms, [each["p50_ms"] for each in bare], size)


def _compared(own_ms: list[float], bare_ms: list[float], calls: int) -> dict[str, Cell]:
    ratios = [own / other for own, other in zip(own_ms, bare_ms, strict=True)]
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
    found: dict[str, float] = json.loads(loop.stdout.readline())
    return found
