"""`SameCores`: run two processes that take turns on the same cores, so that a slow core slows both.

Other work on the same physical core, on its other hardware thread or in another virtual machine, halves the speed of a
call, and changes from second to second. It rarely slows two cores at the same time, so processes on different cores are
affected differently. A process gets the cores when the threads of the other one sleep: torch's OpenMP threads were
measured to spin for about 5 ms after a call.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from mlflow_compress.meters import processor

_LOOK_SECONDS = 0.0005
_USUAL_SPIN_SECONDS, _LONGEST_SPIN_SECONDS = 0.005, 0.05


class SameCores:
    """The cores of one pair of processes.

    The main thread of each process, which makes the calls, stays on one core. Its helper threads stay on as many cores
    as a call uses threads. Windows has no affinity of threads that others can set: there, all threads of a process stay
    on these cores. On systems without CPU affinity, this does nothing.

    Args:
        threads: Number of threads that a call uses; None: all cores.
        number: Number of the pair: the next pair gets the next cores, so that no single core decides.
        root: Folder with `sys`; another one in tests.
    """

    def __init__(self, threads: int | None, number: int, root: Path = Path("/")) -> None:
        self._allowed = processor.allowed_cores() or frozenset[int]()
        self._cores = choose(_one_of_each_first(sorted(self._allowed), root), threads, number)

    def hold(self, *pids: int) -> None:
        """Pin the threads of these processes. Call it again later: new threads inherit the main thread's core."""
        self._set(pids, self._cores[:1], self._cores)

    def release(self, *pids: int) -> None:
        """Allow all cores again."""
        self._set(pids, self._allowed, self._allowed)

    def _set(self, pids: Collection[int], main: Collection[int], helping: Collection[int]) -> None:
        for pid in pids if self._cores else ():
            if not hasattr(os, "sched_setaffinity"):
                _hold_process(pid, helping)
                continue
            with contextlib.suppress(OSError):  # it ended, which is reported elsewhere
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(int(thread.name), main if thread.name == str(pid) else helping)


def _hold_process(pid: int, cores: Collection[int]) -> None:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):  # it ended, which is reported elsewhere
        psutil.Process(pid).cpu_affinity(sorted(cores))


def choose(cores: Sequence[int], threads: int | None, number: int) -> tuple[int, ...]:
    """Return the cores of a pair, the main thread's first; empty if fewer than two cores are known.

    Args:
        cores: Allowed cores, one of each physical core first.
        threads: Number of threads that a call uses; None: all cores.
        number: Number of the pair.
    """
    if len(cores) < 2:
        return ()
    count = min(threads or len(cores), len(cores))
    first = number * count if count < len(cores) else number
    return tuple(cores[(first + offset) % len(cores)] for offset in range(count))


def _one_of_each_first(cores: Sequence[int], root: Path) -> list[int]:
    """Sort logical cores so that one of each physical core comes first."""
    last_ranks: dict[str, int] = {}
    ranks = {}
    for core in cores:
        siblings = root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
        physical = siblings.read_text().strip() if siblings.is_file() else str(core)
        ranks[core] = last_ranks[physical] = last_ranks.get(physical, -1) + 1
    return sorted(cores, key=lambda core: (ranks[core], core))


def wait_until_idle(pid: int) -> None:
    """Wait until no thread of a process runs, at most 50 ms; 5 ms on systems that do not report it."""
    if not Path("/proc/self/task").is_dir():
        time.sleep(_USUAL_SPIN_SECONDS)
        return
    until = time.monotonic() + _LONGEST_SPIN_SECONDS
    while _is_running(pid) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def _is_running(pid: int) -> bool:
    """Return whether any thread of a process runs; False if the system does not report it."""
    for status in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it ended
            _, _, after_name = status.read_text(errors="replace").rpartition(")")
            if after_name.split()[:1] == ["R"]:
                return True
    return False
