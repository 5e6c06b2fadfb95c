"""`SameCores`: lets two processes that take turns run on the same cores, so that what slows a core slows both.

What else runs on a physical core, a neighbour on its other hardware thread or another virtual machine, slows a call to
half its speed, and changes from second to second. It seldom slows two cores at the same time, so two processes on
different cores have different luck. The cores are handed over when the threads of the one before sleep: torch's OpenMP
threads were seen to spin for about 5 ms after a call.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

_LOOK_SECONDS = 0.0005
_LONGEST_SPIN_SECONDS = 0.05


class SameCores:
    """The cores of one pair of processes.

    The main thread of each, which makes the calls, stays on one core. The threads that help it stay on as many cores
    as a call uses threads. Where the system has no such affinity, nothing is held.

    Args:
        threads: how many threads a call uses; None: all cores.
        number: of the pair: the next pair gets the next cores, so that no core decides alone.
        root: where `sys` is; another folder in tests.
    """

    def __init__(self, threads: int | None, number: int, root: Path = Path("/")) -> None:
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else frozenset[int]()
        self._cores = choose(_one_of_each_first(sorted(self._allowed), root), threads, number)

    def hold(self, *pids: int) -> None:
        """Keep the threads of these processes where they belong. To be repeated: new threads inherit the main one's."""
        self._set(pids, self._cores[:1], self._cores)

    def release(self, *pids: int) -> None:
        """Let them run on every core again that is allowed here."""
        self._set(pids, self._allowed, self._allowed)

    def _set(self, pids: Collection[int], main: Collection[int], helping: Collection[int]) -> None:
        for pid in pids if self._cores else ():
            with contextlib.suppress(OSError):  # it ended; that is told elsewhere
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(int(thread.name), main if thread.name == str(pid) else helping)


def choose(cores: Sequence[int], threads: int | None, number: int) -> tuple[int, ...]:
    """Return the cores of a pair, that of the main thread first; empty where there is but one core, or none is known.

    Args:
        cores: that are allowed, one of each physical core first.
        threads: how many threads a call uses; None: all cores.
        number: of the pair.
    """
    if len(cores) < 2:
        return ()
    wanted = min(threads or len(cores), len(cores))
    first = number * wanted if wanted < len(cores) else number
    return tuple(cores[(first + offset) % len(cores)] for offset in range(wanted))


def _one_of_each_first(cores: Sequence[int], root: Path) -> list[int]:
    """Sort logical cores so that those of different physical cores stand first."""
    seen: dict[str, int] = {}
    ranks = {}
    for core in cores:
        siblings = root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
        physical = siblings.read_text().strip() if siblings.is_file() else str(core)
        ranks[core] = seen[physical] = seen.get(physical, -1) + 1
    return sorted(cores, key=lambda core: (ranks[core], core))


def wait_until_idle(pid: int) -> None:
    """Wait until no thread of a process runs, for a twentieth of a second at most."""
    until = time.monotonic() + _LONGEST_SPIN_SECONDS
    while _is_running(pid) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def _is_running(pid: int) -> bool:
    """Return whether any thread of a process runs; False where the system does not tell."""
    for status in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it ended
            _, _, after_name = status.read_text(errors="replace").rpartition(")")
            if after_name.split()[:1] == ["R"]:
                return True
    return False
