"""One machine, one measurement: whoever measures holds a lock, and others wait for it.

Covers: all users and processes that see the same temporary folder. Does not cover: containers with temporary folders of
their own; `COMPRESS_LOCK` names a file that they share.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_compress import file_locks

_POLL_SECONDS = 0.2
_FOR_EVERYONE = 0o666


def lock_file() -> Path:
    """Say which file the lock is."""
    return Path(os.environ.get("COMPRESS_LOCK") or Path(tempfile.gettempdir(), "mlflow-compress.lock"))


@contextmanager
def alone(tell: Callable[[str], None]) -> Iterator[None]:
    """Wait until nobody else measures on this machine, and keep others waiting. Death releases the lock.

    Args:
        tell: told in a sentence whom this waits for, or that there can be no lock.
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
        tell(f"WARNING: others may measure at the same time, as {path} can't be locked ({error}); see COMPRESS_LOCK")
        yield
        return
    try:
        yield
    finally:
        lock.release()
