"""Makes the tables of a store that has none yet: whole, and by one of all who come at once.

MLflow makes them where they are to be, in some hundred steps. Two processes that do so at once stop each other half
way, and whoever comes meanwhile finds the store of another version.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow_compress import terminal
from mlflow_compress.tracking import private_mlflow, sqlite_file

_SOON_SECONDS, _PATIENCE_SECONDS, _OLD_SECONDS = 1.0, 120.0, 3600.0
_JUST_NOW_SECONDS = 3.0  # between two steps


def make(uri: str) -> None:
    """Make the tables behind an address where there are none; wait for whoever does so already.

    Args:
        uri: a store's address. What is no SQLite file and no PostgreSQL is left to MLflow.

    Raises:
        Exception: whatever MLflow raises when they can't be made.
    """
    path = sqlite_file.path_of(uri)
    if path is None:
        private_mlflow.make_tables_in_turn(uri)
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _in_turn(path):
            _make_file(path)


def is_being_made(uri: str) -> bool:
    """Return whether somebody else may be at it: a SQLite file that was changed just now."""
    path = sqlite_file.path_of(uri)
    try:
        return path is not None and time.time() - path.stat().st_mtime < _JUST_NOW_SECONDS
    except OSError:
        return False


def _make_file(path: Path) -> None:
    """Make the file aside, and give it its name when it is whole."""
    if path.exists():
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD_SECONDS:
                left.unlink()
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    try:
        private_mlflow.make_tables(f"sqlite:///{aside.absolute()}")
        # Unlike a new name, a link never takes the place of a file. Where there are no links, MLflow makes the tables.
        with contextlib.suppress(OSError, NotImplementedError):
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """Wait until nobody else of this user's makes this file; go on without where that can't be known."""
    from filelock import FileLock, Timeout

    key = hashlib.sha256(f"{os.path.realpath(path)}:{getattr(os, 'getuid', lambda: 0)()}".encode()).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir(), f"mlflow-compress-new-{key}.lock"))
    with contextlib.suppress(OSError, NotImplementedError, Timeout):
        try:
            lock.acquire(timeout=_SOON_SECONDS)
        except Timeout:
            terminal.warn(f"waiting for another process, which makes the tracking store {path}")
            lock.acquire(timeout=_PATIENCE_SECONDS)
    try:
        yield
    finally:
        lock.release()
