"""Our peak of resident memory compared with the kernel's figures for the same process, read from outside.

`ru_maxrss`, which wait4 returns and GNU time prints, is the kernel's high-water mark of a process at its end. It can't
be compared with the worker itself: the worker resets the mark after each phase (it writes 5 to /proc/self/clear_refs),
which lowers `ru_maxrss`, and everything after the last phase (energy, scoring, Python's exit) raises it.

So the worker, started like the tool does, is watched from outside while it runs: its VmHWM is read about every half
millisecond, from its start to the end of its last phase, which a wrapper notes on a shared clock. The mark only rises
between two resets, so only a rise in the last half millisecond before a reset can be missed.

A twin restores the same model, makes as many calls without a meter, so that nothing is reset, and ends at once: GNU
time's figure is the peak of its whole life, to compare with our phases up to the calls. It is another process with
slightly fewer imports, so it is shown but has no goal. The same holds for a cgroup's `memory.peak`, which includes the
page cache.

Then a spike: each call allocates 300 MB, touches them, holds them for 2 ms and releases them. How much does this raise
the peak of the run phase?
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.children import PROGRAMS, measure, measuring_environment, plan, prepare, run
from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring.worker import part_file
from mlflow_compress.records import Part, Variant, read_json

_TOLERANCE = 0.01
_MIB = 2**20
_SPIKE_BYTES = 300_000_000
_INDEPENDENT = (
    "watched: the same kernel figure (VmHWM) read by us and from outside, which shows that we read it correctly; "
    "the twins are independent"
)
_MODELS: dict[str, dict[str, str]] = {"yolo11n": {}, "distilbert": {}, "llama": {"new_tokens": "8"}}


def find(quick: bool) -> Finding:
    """Measure some models, and a spike."""
    rows: list[dict[str, Cell]] = []
    errors, notes = [], [_INDEPENDENT]
    for model, options in list(_MODELS.items())[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            variant = plan(model, 6, options=options)
            prepare(variant, Path(folder))
            for name, ours, outside, judged in _from_outside(variant, Path(folder)):
                error = ours / outside - 1
                rows.append(_row(f"{model}: {name}", ours, outside, error))
                errors += [error] if judged else []
    rise, source = _spike()
    expected = _SPIKE_BYTES / _MIB
    errors.append(rise / expected - 1)
    rows.append(_row("a spike of 2 ms, in every call", rise, expected, errors[-1]))
    notes.append(f"our figures come from: {source}")
    if _cgroup() is None:
        notes.append("cgroup v2's memory.peak: not available here (no memory controller, or no write permission)")
    if shutil.which("time") is None:
        notes.append("GNU time is not installed: the twin's figure comes from wait4, which GNU time prints too")
    return Finding(
        name="fidelity_memory",
        goal=f"our peak is within {_TOLERANCE:.0%} of the kernel's figure from outside, and the spike is seen.",
        met=all(abs(error) <= _TOLERANCE for error in errors),
        rows=rows,
        notes=notes,
    )


def _row(quantity: str, ours: float, outside: float, error: float) -> dict[str, Cell]:
    return {"what": quantity, "ours MiB": f"{ours:.1f}", "outside MiB": f"{outside:.1f}", "error": f"{error:+.2%}"}


def _from_outside(variant: Variant, folder: Path) -> Iterator[tuple[str, float, float, bool]]:
    """Yield a name, our peak, the figure from outside, and whether the two must agree."""
    environment = measuring_environment(variant)
    numbers, outside = watched(variant, folder)
    yield "the worker, watched", numbers["cpu/ram_peak_mib"], outside, True

    ours = max(numbers[f"cpu/ram_peak_{phase}_mib"] for phase in ("import", "load", "warmup", "run"))
    calls = [f"{numbers['cpu/warmup_count']:.0f}", str(variant.budget.min_iterations)]
    twin = [sys.executable, str(PROGRAMS / "bare_loop.py"), str(folder), *calls]
    yield "a twin without a meter, GNU time", ours, _gnu_time_mib(twin, folder, environment), False
    if (group := _cgroup()) is not None:
        with group as path:
            join = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(path)]
            run([*join, *twin], folder, environment)
            peak = int((path / "memory.peak").read_text()) / _MIB
        yield "a twin without a meter, cgroup with page cache", ours, peak, False


def watched(variant: Variant, folder: Path) -> tuple[Mapping[str, float], float]:
    """Measure a prepared variant, and return its numbers and the peak seen from outside, in MiB.

    Raises:
        RuntimeError: it failed.
    """
    notes = folder / "phases.txt"
    notes.unlink(missing_ok=True)
    readings: list[tuple[float, float]] = []
    worker = [sys.executable, PROGRAMS / "noted_worker.py", notes, "measure", folder, "cpu"]
    run(
        worker,
        folder,
        measuring_environment(variant),
        lambda pid: readings.append((time.monotonic(), _mark_mib(pid))),
    )
    part = Part.from_json(read_json(folder / part_file("measure", "cpu")))
    if part.outcome.status != "ok":
        raise RuntimeError(part.outcome.reason)
    ended = float(notes.read_text(encoding="utf-8").splitlines()[-1].split()[0])
    return part.measurements, max(mark for when, mark in readings if when <= ended)


def _mark_mib(pid: int) -> float:
    """Read a process's high-water mark; return 0 if it is ending."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    _, key, value = status.partition("VmHWM:")
    return int(value.split()[0]) / 1024 if key else 0.0


def _gnu_time_mib(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Return the peak that GNU time prints for a command, or that of wait4 if GNU time is not installed."""
    gnu_time = shutil.which("time")
    if gnu_time is None:
        return run(command, folder, environment).peak_mib or 0.0
    printed = folder / "time.txt"
    run([gnu_time, "-f", "%M", "-o", printed, *command], folder, environment)
    return int(printed.read_text()) / 1024


def _cgroup() -> contextlib.AbstractContextManager[Path] | None:
    """Return a new cgroup below our own, if cgroup v2 allows measuring memory in it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        parent = Path("/sys/fs/cgroup") / next(line[3:].lstrip("/") for line in lines if line.startswith("0::"))
        if "memory" not in (parent / "cgroup.subtree_control").read_text().split() or not os.access(parent, os.W_OK):
            return None
    except (OSError, StopIteration):
        return None
    return _temporary(parent / f"compress-benchmark-{os.getpid()}")


@contextlib.contextmanager
def _temporary(group: Path) -> Iterator[Path]:
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


def _spike() -> tuple[float, str]:
    """Return by how many MiB the spike raises the run phase's peak, and the source of peaks on this machine."""
    source = PROGRAMS / "spiky.yaml"
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        variant = plan(str(source), 6)
        prepare(variant, Path(folder))
        for size in (1, _SPIKE_BYTES):
            with _variable("SPIKE_BYTES", str(size)):
                part = measure(variant, Path(folder))
            peaks.append(part.measurements["cpu/ram_peak_run_mib"])
    return peaks[1] - peaks[0], part.facts["memory_source"]


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable temporarily; the worker inherits it."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
