"""Two measurements never share the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_compress.measuring import machine_lock

CODE = """
from mlflow_compress.measuring import machine_lock
with machine_lock.alone(lambda text: print(text, flush=True)):
    print("alone", flush=True)
    input()
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESS_LOCK", str(tmp_path / "lock"))
    return tmp_path / "lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    with start() as process:
        assert line_of(process) == "alone"
        yield process
        process.kill()


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux reports who holds a lock")
def test_one_waits_for_the_other_and_says_so(holder: subprocess.Popen[str]) -> None:
    with start() as waiter:
        assert line_of(waiter) == f"waiting for process {holder.pid} (python), which measures on this machine"
        holder.communicate("done\n")
        assert line_of(waiter) == "alone"
        waiter.communicate("\n")


def test_death_frees_the_machine(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    messages: list[str] = []
    with machine_lock.alone(messages.append):
        assert messages == []


def test_an_error_frees_the_machine(lock: Path) -> None:
    with pytest.raises(ValueError, match="x"), machine_lock.alone(print):
        raise ValueError("x")
    messages: list[str] = []
    with machine_lock.alone(messages.append):
        assert messages == []


def test_others_may_use_the_same_lock(lock: Path) -> None:
    previous = os.umask(0o077)
    try:
        with machine_lock.alone(print):
            assert lock.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(previous)


def test_where_there_can_be_no_lock_measuring_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_LOCK", str(tmp_path / "none" / "file" / "lock"))
    (tmp_path / "none").write_text("")
    messages: list[str] = []
    with machine_lock.alone(messages.append):
        pass
    assert "can't be locked" in messages[0]
