"""`BoundedLog`: write a worker's standard error to disk as it comes; of a flood, keep only the two ends."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import IO

HEAD_BYTES, TAIL_BYTES = 64 * 2**10, 192 * 2**10
_MOST_BYTES = HEAD_BYTES + TAIL_BYTES + 2**10  # with the line about the omitted bytes
_CHUNK_BYTES = 64 * 2**10
_LINE_BYTES = 4 * 2**10  # of the end, searched for the last line


class BoundedLog:
    """Copies a pipe to a file: the first `HEAD_BYTES` as they come, the last `TAIL_BYTES` at the end.

    A thread waits for the pipe. It does nothing while nothing is written, and the writer never has to wait.

    Args:
        pipe: The worker's standard error. It is closed here.
        file: The log, opened unbuffered. It is closed here. A full disk loses the log, not the measurement.
    """

    def __init__(self, pipe: IO[bytes], file: IO[bytes]) -> None:
        self._pipe, self._file = pipe, file
        self._lock = threading.Lock()
        self._head, self._tail = bytearray(), bytearray()
        self._left_out = 0
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Write the end of the log. Wait at most `seconds` for a process that still has the pipe open."""
        self._thread.join(seconds)
        with self._lock, contextlib.suppress(OSError), self._file:
            if self._left_out:
                self._file.write(_gap(self._left_out))
            self._file.write(self._tail)

    def last_line(self) -> str:
        """Return the last line that is not blank; empty if there is none."""
        with self._lock:
            end = bytes(self._head[-_LINE_BYTES:] + self._tail[-_LINE_BYTES:])
        lines = [line for line in end.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def _drain(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), _CHUNK_BYTES):
                with self._lock:
                    self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        head = chunk[: HEAD_BYTES - len(self._head)]
        if head:
            self._head += head
            with contextlib.suppress(OSError, ValueError):  # the disk is full; closed already
                self._file.write(head)
        self._tail += chunk[len(head) :]
        too_many = len(self._tail) - TAIL_BYTES
        if too_many > 0:
            del self._tail[:too_many]
            self._left_out += too_many


def read(path: Path) -> bytes:
    """Return a log, or the two ends of a large one; empty if there is no file: the worker owns the folder.

    Raises:
        OSError: The log can't be read.
    """
    if path.is_symlink() or not path.is_file():
        return b""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _MOST_BYTES:
            return file.read(_MOST_BYTES)
        head = file.read(HEAD_BYTES)
        file.seek(size - TAIL_BYTES)
        return head + _gap(size - HEAD_BYTES - TAIL_BYTES) + file.read(TAIL_BYTES)


def _gap(left_out: int) -> bytes:
    return f"\n[{left_out:,} bytes omitted]\n".encode()
