"""A worker's log: complete if it is short; of a flood, only both ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_compress.measuring import bounded_log
from mlflow_compress.measuring.bounded_log import HEAD_BYTES, TAIL_BYTES, BoundedLog


def test_a_short_log_is_whole(tmp_path: Path) -> None:
    log, text = _written(tmp_path, b"one\ntwo \xff\n\n  \n")
    assert text == b"one\ntwo \xff\n\n  \n"
    assert log.last_line() == "two \ufffd"


def test_an_empty_log_has_no_last_line(tmp_path: Path) -> None:
    log, text = _written(tmp_path, b"")
    assert (log.last_line(), text) == ("", b"")


def test_a_log_that_just_fits_loses_nothing(tmp_path: Path) -> None:
    data = os.urandom(HEAD_BYTES + TAIL_BYTES)
    assert _written(tmp_path, data)[1] == data


def test_a_long_log_keeps_both_ends_and_counts_the_omitted_bytes(tmp_path: Path) -> None:
    data = os.urandom(HEAD_BYTES + 1_234_567 + TAIL_BYTES)
    gap = b"\n[1,234,567 bytes omitted]\n"
    assert _written(tmp_path, data)[1] == data[:HEAD_BYTES] + gap + data[-TAIL_BYTES:]


def test_the_begin_is_on_disk_while_the_worker_runs(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    path = tmp_path / "prepare.log"
    log = BoundedLog(os.fdopen(reading, "rb"), path.open("xb", buffering=0))
    os.write(writing, b"so far")
    while not path.read_bytes():
        pass
    assert path.read_bytes() == b"so far"
    log.close(0.1)  # do not wait for a process that still has the pipe open
    os.close(writing)


def test_a_log_of_before_is_read_at_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "prepare.log"
    data = b"a" * HEAD_BYTES + b"b" * 2_000_000 + b"c" * TAIL_BYTES
    path.write_bytes(data)
    gap = b"\n[2,000,000 bytes omitted]\n"
    assert bounded_log.read(path) == data[:HEAD_BYTES] + gap + data[-TAIL_BYTES:]


@pytest.mark.posix
@pytest.mark.parametrize(
    "make", [Path.mkdir, getattr(os, "mkfifo", None), lambda path: path.symlink_to("/etc/hostname")]
)
def test_what_is_not_a_file_is_not_a_log(tmp_path: Path, make: object) -> None:
    path = tmp_path / "prepare.log"
    assert callable(make)
    make(path)
    assert bounded_log.read(path) == b""


def _written(folder: Path, data: bytes) -> tuple[BoundedLog, bytes]:
    reading, writing = os.pipe()
    path = folder / "prepare.log"
    log = BoundedLog(os.fdopen(reading, "rb"), path.open("xb", buffering=0))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(data)
    log.close(60)
    return log, path.read_bytes()
