"""Write files atomically, and identify them by their content."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LARGE_BYTES = 64 * 2**20  # larger files are identified by size and date


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path next to a file to write to. It replaces the file at the end, so that no partial file remains.

    Raises:
        OSError: It can't be written. The old file stays, and nothing else is left.
    """
    partial_path = path.with_name(f"{path.name}.partial")
    partial_path.unlink(missing_ok=True)  # do not write into a link or pipe that somebody created there
    try:
        yield partial_path
        partial_path.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial_path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill. It is renamed at the end, unless another process was faster.

    Raises:
        OSError: It can't be written.
    """
    partial_folder = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        yield partial_folder
        partial_folder.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256_unless_large(path: Path) -> str:
    """Return the SHA-256 of a file's content; empty for a file larger than `LARGE_BYTES`.

    In each process, a file is read only once unless its size or date changes.
    """
    status = path.stat()
    return "" if status.st_size > LARGE_BYTES else _remembered(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2**16)
def _remembered(path: str, size: int, changed_ns: int) -> str:
    return sha256(Path(path))
