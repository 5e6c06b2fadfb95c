"""One measurement at a time on each machine: a process that measures holds a lock, and others wait for it.

Covers: all users and processes with the same temporary folder; on macOS all users, although each has its own. Does not
cover: containers with their own temporary folders, and other users on Windows; set `COMPRESS_LOCK` to a file that they
share.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_compress import file_locks

_POLL_SECONDS = 0.2
_FOR_EVERYONE = 0o666


def lock_file() -> Path:
    """Return the path of the lock file."""
    folder = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()  # noqa: S108  (the one that all users share)
    return Path(os.environ.get("COMPRESS_LOCK") or Path(folder, "mlflow-compress.lock"))


@contextmanager
def alone(tell: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process measures on this machine, and hold the lock. The end of the process releases it.

    Args:
        tell: Receives a message about the process that this waits for, or about a lock that can't be used.
    """
    from filelock import FileLock, Timeout

    path = lock_file()
    lock = FileLock(path, mode=_FOR_EVERYONE)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tell(f"waiting for {file_locks.holder(path)}, which measures on this machine")
            lock.acquire(poll_interval=_POLL_SECONDS)
    except (OSError, NotImplementedError) as error:
        tell(f"WARNING: others may measure at the same time: {path} can't be locked ({error}); set COMPRESS_LOCK")
        yield
        return
    try:
        yield
    finally:
        lock.release()
