"""What a worker started: found, and ended with it.

Covers: the worker's process group and session; its children and theirs, also those that a daemon left behind while the
worker lived; and whatever inherited its environment, in whatever session it is and whoever its parent is now.
Does not cover: a process that was started with an environment of its own by one that had left the worker's session and
outlived it. Nothing is left there by which to know it.
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
_MOST_ROUNDS = 20  # what forks faster than it is found is looked for again
_BETWEEN_ROUNDS_SECONDS = 0.02


def end(pid: int, mark: str) -> None:
    """Kill a worker and whatever it started. Whether the worker itself is gone must be waited for.

    Args:
        pid: the worker's, which leads a session of its own. It may have ended already.
        mark: what stands in the environment under `MARK`.
    """
    started = _tree(pid)  # before the worker dies: then its family tree falls apart
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
    """Return a process and all below it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def _marked(pid: int, mark: str) -> Iterator[psutil.Process]:
    """Find the processes of a session, and those that bear a mark."""
    import psutil

    for other in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(other)
            if _session(other) == pid or process.environ().get(MARK) == mark:
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
