"""Our median latency against a bare loop over the same saved model, in turns.

The model is prepared once. Then the worker, started as the tool starts it, and a bare loop in a process of its own hold
it at the same time, with the same environment, threads and batch, warmed up alike. They make their calls in turns of
half a second, or three calls; which of the two comes first changes from round to round. Each round gives one ratio, so
that a machine that grows slower, or is disturbed, favours neither.

Each has one thread: two threads wait for each other, and on a machine with two cores whatever else runs makes a call
several times longer, now of the one side and now of the other.

Both are told to keep freed memory. Else glibc gives large buffers back to the kernel or not by where the heap happens
to lie, and one process makes a call of yolo11n in 113 ms and the next, the same program, in 153.
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
from collections.abc import Callable
from pathlib import Path

from benchmarks.children import PROGRAMS, measuring_environment, plan, prepare
from benchmarks.finding import Cell, Finding
from mlflow_compress.alternate import Turns, rounds_of
from mlflow_compress.percentiles import interval, percentile
from mlflow_compress.records import Variant, write_json
from mlflow_compress.wall import Worker

_TOLERANCE = 0.02
_SECONDS, _QUICK_SECONDS = 80, 5  # for the rounds of each model
_FEWEST_ROUNDS = 4
_WARMUP = 6  # the fewest that the tool makes
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36)}  # Source: mallopt(3)
_MODELS: dict[str, dict[str, str]] = {
    "yolo11n": {},
    "distilbert": {},
    "llama": {"prompt_tokens": "16", "new_tokens": "2"},
}


def find(quick: bool) -> Finding:
    """Measure each model in turns."""
    rows: list[dict[str, Cell]] = []
    os.environ.update(_KEEP_MEMORY)
    for model, options in list(_MODELS.items())[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            variant = dataclasses.replace(plan(model, 6, options=options), interleave=True, threads=1)
            prepare(variant, Path(folder))
            rows.append({"model": model, **_in_turns(variant, Path(folder), _QUICK_SECONDS if quick else _SECONDS)})
    return Finding(
        name="fidelity_latency",
        goal=f"the median over the rounds of our p50 over the bare loop's differs from 1 by at most {_TOLERANCE:.0%}.",
        met=all(isinstance(ratio := row["ours / bare"], float) and abs(ratio - 1) <= _TOLERANCE for row in rows),
        rows=rows,
        notes=["low and high: the 95 % interval of that median; a round is a turn of each, of as many calls"],
    )


def _in_turns(variant: Variant, folder: Path, seconds: float) -> dict[str, Cell]:
    """Let the worker and the bare loop make their rounds.

    Raises:
        RuntimeError: the two did not have the same number of threads.
    """
    write_json(folder / "variant.json", variant)
    with Worker("measure", variant, folder, "cpu") as worker, _bare(variant, folder) as loop:
        ours = Turns(worker, lambda event: None)
        ours.wait()
        bare: list[dict[str, float]] = []
        ours.go()  # not counted: it says how many calls a round has
        size = ours.count
        turns: list[Callable[[], object]] = [ours.go, lambda: bare.append(_turn(loop, size))]
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
    bare_ms = [each["p50_ms"] for each in bare]
    ratios = [own / other for own, other in zip(own_ms, bare_ms, strict=True)]
    low, high = interval(ratios, 50) or (None, None)
    return {
        "rounds": len(bare),
        "calls in each": size,
        "threads": threads,
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
