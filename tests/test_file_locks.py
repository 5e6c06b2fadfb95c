"""The process that has locked a file is named if the kernel reports it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_compress import file_locks

HOLD = """
import fcntl, sys
file = open(sys.argv[2], "r+b")
getattr(fcntl, sys.argv[1])(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").is_file(), reason="the kernel does not report locks")
@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_the_process_that_holds_a_lock_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a file"
    file.write_bytes(b"x")
    command = [sys.executable, "-c", HOLD, kind, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert file_locks.holder(file) == f"process {process.pid} (python)"
        process.communicate(b"")
    assert file_locks.holder(file) == "another process"


def test_a_file_that_is_not_there_is_held_by_somebody(tmp_path: Path) -> None:
    assert file_locks.holder(tmp_path / "none") == "another process"
