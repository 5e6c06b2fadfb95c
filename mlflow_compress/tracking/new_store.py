"""Creates the tables of a new store: completely, and by only one of several processes.

MLflow creates them in place, in about a hundred steps. Two processes that do so at once stop each other half way, and
a third one that comes in between finds a store of another version.
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
    """Create the tables at an address where there are none; wait for a process that is already doing so.

    Args:
        uri: a store's address. Other stores than SQLite files and PostgreSQL are left to MLflow.

    Raises:
        Exception: any exception of MLflow, if they can't be created.
    """
    path = sqlite_file.path_of(uri)
    if path is None:
        private_mlflow.make_tables_in_turn(uri)
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _in_turn(path):
            _make_file(path)


def is_being_made(uri: str) -> bool:
    """Return whether another process may be creating it: a SQLite file that was changed just now."""
    path = sqlite_file.path_of(uri)
    try:
        return path is not None and time.time() - path.stat().st_mtime < _JUST_NOW_SECONDS
    except OSError:
        return False


def _make_file(path: Path) -> None:
    """Create the file under another name, and rename it when it is complete."""
    if path.exists():
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):  # left by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD_SECONDS:
                left.unlink()
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.new")
    partial_path.unlink(missing_ok=True)
    try:
        private_mlflow.make_tables(f"sqlite:///{partial_path.absolute()}")
        # Unlike a rename, a link never replaces a file. Where there are no links, MLflow creates the tables.
        with contextlib.suppress(OSError, NotImplementedError):
            os.link(partial_path, path)
    finally:
        partial_path.unlink(missing_ok=True)


@contextlib.contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process of this user creates this file; continue where that can't be known."""
    from filelock import FileLock, Timeout

    key = hashlib.sha256(f"{os.path.realpath(path)}:{getattr(os, 'getuid', lambda: 0)()}".encode()).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir(), f"mlflow-compress-new-{key}.lock"))
    with contextlib.suppress(OSError, NotImplementedError, Timeout):
        try:
            lock.acquire(timeout=_SOON_SECONDS)
        except Timeout:
            terminal.warn(f"waiting for another process that is creating the tracking store {path}")
            lock.acquire(timeout=_PATIENCE_SECONDS)
    try:
        yield
    finally:
        lock.release()
