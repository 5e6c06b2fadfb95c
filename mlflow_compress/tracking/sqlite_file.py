"""The file of a SQLite store: its path, and how long to wait for other processes that lock it."""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.parse
from pathlib import Path

from mlflow_compress import file_locks, terminal
from mlflow_compress.errors import StoreError

_SOON_SECONDS, PATIENCE_SECONDS = 1.0, 30.0
LOCKED = "database is locked"  # SQLite's message
_SCHEME = "sqlite:///"
_ADVICE = "Wait until that process has ended, or stop it, and try again."


def path_of(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for any other address, and for addresses with a query."""
    name = uri.removeprefix(_SCHEME)
    if not uri.startswith(_SCHEME) or not name or "?" in name or name.startswith((":memory:", "file:")):
        return None
    return Path(name)


def address(path: Path, mode: str) -> str:
    """Return SQLite's address of a file with an open mode (`ro`, `rw`), which never creates the file."""
    return f"file:{urllib.parse.quote(str(path.resolve()))}?mode={mode}"


def wait_for(uri: str, *, writing: bool = False) -> None:
    """Wait until no other process locks the file of a store; warn after a second.

    Args:
        uri: the store's address. Anything but an existing SQLite file is not waited for.
        writing: whether it will be written to; some locks hinder only writers.

    Raises:
        StoreError: the file is still locked after half a minute; the message names the process, where it is known.
    """
    path = path_of(uri)
    if path is None or not path.is_file() or not _is_locked(path, writing, _SOON_SECONDS):
        return
    terminal.warn(f"waiting for {file_locks.holder(path)}, which has {path} locked")
    if _is_locked(path, writing, PATIENCE_SECONDS):
        raise StoreError(f"The tracking store {path} is locked by {file_locks.holder(path)}. {_ADVICE}")


def _is_locked(path: Path, writing: bool, seconds: float) -> bool:
    """Return whether a file stays locked for a time. Other errors are left to the callers."""
    statement = "BEGIN IMMEDIATE" if writing else "SELECT COUNT(*) FROM sqlite_master"
    try:
        opened = sqlite3.connect(
            address(path, "rw" if writing else "ro"), uri=True, timeout=seconds, isolation_level=None
        )
        with contextlib.closing(opened) as database:
            database.execute(statement)
    except sqlite3.Error as error:
        return LOCKED in str(error)
    return False
