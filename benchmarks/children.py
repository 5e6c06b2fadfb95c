"""Child processes: run them with the kernel's accounting, and start the package's worker like the tool does."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.measuring import one_process, worker_process
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Part, Variant

PROGRAMS = Path(__file__).parent / "programs"
_PAUSE_SECONDS = 0.0005


@dataclass(frozen=True)
class Ended:
    """The kernel's accounting of a child that has ended, including the children that it waited for.

    Attributes:
        wall_s: time from start to end, in seconds.
        cpu_s: user and system time, in seconds.
        peak_mib: `ru_maxrss`, which GNU time prints. It starts at the size of the parent process, so it is None if it
            does not exceed that.
        output: its standard output.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float | None
    output: str


def run(
    command: Sequence[object],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    look: Callable[[int], object] | None = None,
) -> Ended:
    """Run a program to its end.

    Args:
        command: the program and its arguments, as text or paths.
        folder: its working folder.
        environment: its environment; None: that of this process.
        look: called with the child's process id about every half millisecond while it runs.

    Raises:
        RuntimeError: it failed.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        status, usage = _wait(process.pid, look)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        printed, messages = output.read().decode(), errors.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{messages[-3000:]}")
    import resource  # of POSIX, like wait4

    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Ended(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024 if usage.ru_maxrss > own else None,
        output=printed,
    )


def _wait(pid: int, look: Callable[[int], object] | None) -> tuple[int, Any]:
    while look is not None:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage
        look(pid)
        time.sleep(_PAUSE_SECONDS)
    _, status, usage = os.wait4(pid, 0)
    return status, usage


def plan(model: str, calls: int, method: str = "original", options: Mapping[str, str] | None = None) -> Variant:
    """Plan a variant of a recipe: random weights, on the CPU, exactly `calls` timed calls, no quality, no energy."""
    settings = recipe.Settings(
        weights="random",
        trust=True,
        data="none",
        options={key: [value] for key, value in (options or {}).items()},
        budget=Budget(
            min_iterations=calls,
            min_seconds=0,
            max_seconds=3600,
            fewest_iterations=calls,
            energy_seconds=0,
            launches=1,
        ),
    )
    [variant] = recipe.plan(recipe.read(model), [(method, chains.parse_chain(method))], settings)
    return variant


def prepare(variant: Variant, folder: Path) -> Part:
    """Prepare a variant in a folder, like the tool does."""
    return _work("prepare", variant, folder)


def measure(variant: Variant, folder: Path) -> Part:
    """Measure the result of `prepare` in a folder on the CPU, like the tool does."""
    return _work("measure", variant, folder, "cpu")


def measuring_environment(variant: Variant) -> dict[str, str]:
    """Return the environment variables with which the tool measures."""
    return worker_process.environment(variant, "measure")


def _work(verb: str, variant: Variant, folder: Path, device: str = "") -> Part:
    """Run one verb of the worker through the function that the tool uses.

    Raises:
        RuntimeError: it failed.
    """
    part = one_process.work(verb, variant, folder, lambda event: None, device)
    if part.outcome.status != "ok":
        raise RuntimeError(f"{verb} of {variant.model}, {variant.method}: {part.outcome.reason}")
    return part
