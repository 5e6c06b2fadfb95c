"""Cost of a sweep over many machines, and whether it loses or duplicates results: several Ray nodes on this machine.

Sleeping replaces measuring: a few milliseconds for each of 1,000 variants, while one node is killed; then 2 s for each
of a few variants, so that the time between two variants on a node can be separated from waiting for the store.
Everything else is that of `compress-bench sweep --on ray`, with a SQLite store.
"""

from __future__ import annotations

import io
import itertools
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.finding import Cell, Finding
from benchmarks.logical import LogicalNodes
from mlflow_compress.measuring.measure_one import Run
from mlflow_compress.planning.order import Queue
from mlflow_compress.records import Outcome, Result, Step, Variant
from mlflow_compress.sweeping import ray_sweep
from mlflow_compress.sweeping.delivery import Delivery
from mlflow_compress.sweeping.progress import Board
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, open_store
from mlflow_compress.tracking.log import Log
from mlflow_compress.tracking.spool import Shipment, Spool

_NODES, _VARIANTS, _FEW = 4, 1000, 48
_SHORT_SECONDS, _LONG_SECONDS = 0.005, 2.0
_TYPICAL_SECONDS, _MOST_SHARE = 10.0, 0.05
_MOST_GROWTH_MIB = 64.0
_MIB = 2**20


def find(quick: bool) -> Finding:
    """Sweep over four logical machines, and kill one in the middle."""
    many, few = (_VARIANTS // 20, _FEW // 6) if quick else (_VARIANTS, _FEW)
    old_folder = Path.cwd()
    with tempfile.TemporaryDirectory() as name, LogicalNodes(_NODES) as nodes:
        os.chdir(name)  # MLflow creates a folder for artifacts in the current folder
        try:
            store = open_store(f"sqlite:///{name}/mlflow.db")
            memory: dict[int, float] = {}
            killed: list[float] = []

            def watch(done: int) -> None:
                if done in (many // 10, many):
                    memory[done] = _resident_mib()
                if done == many // 2:
                    killed.append(time.time())
                    nodes.kill(0)
                    nodes.add()

            began = time.monotonic()
            results = _swept(nodes, store, "many", many, _SHORT_SECONDS, watch)
            seconds = time.monotonic() - began
            runs = Counter(
                (run.said("model"), run.said("method"))
                for run in reading.runs(store, {writing.experiment_id(store, "many"): ""})
            )
            long_results = _swept(nodes, store, "few", few, _LONG_SECONDS, lambda done: None)
            rate = _logging_rate(store, Path(name), many // 10)
        finally:
            os.chdir(old_folder)
    gaps = sorted(_gaps(long_results))
    dispatch = statistics.median(gaps)
    lost_count = many - len(runs)
    twice = sum(count - 1 for count in runs.values())
    overlapping = sum(gap < 0 for gap in (*_gaps(results), *gaps))
    growth = memory[many] - memory[many // 10]
    facts: list[tuple[str, Cell, str]] = [
        ("variants lost, of the short ones", lost_count, "0"),
        ("variants with two results", twice, "0"),
        ("measurements that overlap another on their node", overlapping, "0"),
        ("nodes killed in the middle", len(killed), ""),
        (f"from the end of a {_LONG_SECONDS:g} s variant to the start of the next, median s", dispatch, "0.5"),
        ("the same, 95th percentile s", gaps[int(0.95 * (len(gaps) - 1))], ""),
        (f"the same as a share of a {_TYPICAL_SECONDS:g} s variant", dispatch / _TYPICAL_SECONDS, f"{_MOST_SHARE:g}"),
        ("short variants a second, logged, all nodes together", many / seconds, ""),
        ("results logged into SQLite a second, by themselves", rate, ""),
        (f"driver's memory after {many // 10}, MiB", memory[many // 10], ""),
        (f"driver's memory after {many}, MiB", memory[many], f"at most {_MOST_GROWTH_MIB:g} more"),
    ]
    return Finding(
        name="sweep_scale",
        goal=f"{many} variants on {_NODES} nodes of which one is killed: none lost, none twice, none overlapping; at "
        f"most {_MOST_SHARE:.0%} of a {_TYPICAL_SECONDS:g} s variant between two; the driver's memory flat.",
        met=not (lost_count or twice or overlapping)
        and dispatch <= _MOST_SHARE * _TYPICAL_SECONDS
        and growth <= _MOST_GROWTH_MIB,
        rows=[{"what": fact, "found": value, "goal": goal} for fact, value, goal in facts],
        notes=["all nodes, the driver and the store share this machine's cores"],
    )


def _swept(
    nodes: LogicalNodes, store: Store, experiment: str, count: int, seconds: float, watch: Callable[[int], None]
) -> list[Result]:
    """Sweep over variants that sleep for some time."""
    variants = [
        Variant(f"model {number // 50}", f"v{number}", "scale", "python", "none.py", chain=(Step("fp16"),))
        for number in range(count)
    ]
    delivery = Delivery(Spool(Path.cwd() / "spool"), lambda: Log(store, {}, experiment, ["scale"], False), print)
    counter = itertools.count(1)
    task = ray_sweep.Task(with_model=False, again=True, run=_sleeping(seconds))
    return ray_sweep.sweep(
        Queue(variants),
        nodes.address,
        task,
        delivery,
        Board(io.StringIO(), quiet=True),
        lambda result: watch(next(counter)),
    )


def _sleeping(seconds: float) -> Run:
    """Return a function that sleeps instead of measuring; a closure, which Ray pickles by value."""

    def run(variant: Variant, folder: Path, listen: Any) -> Result:
        import os
        import time

        started = time.time()
        listen({"stage": "timing on cpu"})
        time.sleep(seconds)
        return Result(
            variant,
            "ok",
            measurements={f"cpu/number_{number}_ms": float(number) for number in range(25)},
            outcomes={"cpu": Outcome("ok")},
            facts={"at": os.environ["NODE"]},
            started_s=started,
            ended_s=time.time(),
        )

    return run


def _gaps(results: Sequence[Result]) -> list[float]:
    """Return the seconds between consecutive measurements on a node; negative if they overlap."""
    gaps = []
    for node in {result.facts["at"] for result in results}:
        spans = sorted((result.started_s, result.ended_s) for result in results if result.facts["at"] == node)
        gaps += [following[0] - previous[1] for previous, following in itertools.pairwise(spans)]
    return gaps


def _logging_rate(store: Store, folder: Path, count: int) -> float:
    """Return how many results per second are logged one after the other."""
    delivery = Delivery(Spool(folder / "spool"), lambda: Log(store, {}, "rate", ["scale"], False), print)
    _ = delivery.log
    run = _sleeping(0.0)
    os.environ["NODE"] = "here"
    began = time.monotonic()
    for number in range(count):
        variant = Variant("rate", f"v{number}", "scale", "python", "none.py", chain=(Step("fp16"),))
        with delivery.entry(print) as entry:
            result = run(variant, entry.folder, lambda event: None)
            delivery.deliver(Shipment(entry, result, delivery.log.address(str(number)), lambda text: None))
    return count / (time.monotonic() - began)


def _resident_mib() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / _MIB
