"""Find and end all processes that a worker started.

Covers: the worker's process group and session; all its descendants, also those that a daemon left behind while the
worker lived; and every process that inherited its environment, in any session and with any parent.
Does not cover: a process with a new environment, started by a process that had left the worker's session and outlived
it. Nothing identifies such a process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

MARK = "COMPRESS_WORKER"  # environment: names the worker that a process belongs to
_MOST_ROUNDS = 20  # processes that fork faster than they are found are searched again
_BETWEEN_ROUNDS_SECONDS = 0.02


def end(pid: int, mark: str) -> None:
    """Kill a worker and all processes that it started. The caller must wait for the worker itself to end.

    Args:
        pid: Id of the worker, which leads its own session. It may have ended already.
        mark: Value of `MARK` in the environment.
    """
    started = _tree(pid)  # before the worker dies and its process tree is lost
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for _ in range(_MOST_ROUNDS):
        alive = [process for process in (*started, *_marked(pid, mark)) if _is_alive(process)]
        if not alive:
            return
        for process in alive:
            _kill(process)
        time.sleep(_BETWEEN_ROUNDS_SECONDS)


def _tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    import psutil

    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def _marked(pid: int, mark: str) -> Iterator[psutil.Process]:
    """Yield the processes of a session, and those with a mark in their environment."""
    import psutil

    for candidate in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(candidate)
            if _session(candidate) == pid or process.environ().get(MARK) == mark:
                yield process


def _session(pid: int) -> int | None:
    return os.getsid(pid) if hasattr(os, "getsid") else None


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _kill(process: psutil.Process) -> None:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        process.kill()
