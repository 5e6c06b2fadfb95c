"""Files: written so that a reader never sees half of one, and told apart by their content."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LARGE_BYTES = 64 * 2**20  # larger files are told apart by size and date


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside a file to write to. It takes the file's place at the end: a full disk leaves no half of it.

    Raises:
        OSError: it can't be written. What was there before stays, and nothing else is left.
    """
    aside = path.with_name(f"{path.name}.partial")
    aside.unlink(missing_ok=True)  # a link or a pipe, which somebody else left there, would be written into
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill. It gets its name at the end, unless another process was faster with the same.

    Raises:
        OSError: it can't be written.
    """
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256_unless_large(path: Path) -> str:
    """Return the SHA-256 of a file's content; empty for one of more than `LARGE_BYTES`.

    A file that has not changed its size or date is read once in a process.
    """
    status = path.stat()
    return "" if status.st_size > LARGE_BYTES else _remembered(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2**16)
def _remembered(path: str, size: int, changed_ns: int) -> str:
    return sha256(Path(path))
