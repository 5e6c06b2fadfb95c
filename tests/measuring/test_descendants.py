"""All processes that a worker started are found and ended; others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from mlflow_compress.measuring import descendants

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="starts programs of POSIX")
_SLEEP = ("sleep", "999")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that no worker started."""
    with subprocess.Popen(_SLEEP, start_new_session=True) as process:
        yield process
        process.kill()


def test_a_worker_ends_with_its_children_and_theirs(bystander: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(
        ["sh", "-c", "sh -c 'sleep 999 & echo $!; sleep 999' & wait"], start_new_session=True, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        grandchild = int(worker.stdout.readline())
        descendants.end(worker.pid, "no mark")
        assert worker.wait(30) == -9
        assert worker.stdout.read() == b""  # no process has the pipe open any more
    assert not _runs(grandchild)
    assert bystander.poll() is None


def test_a_process_that_outlives_its_worker_is_found_by_its_mark(bystander: subprocess.Popen[bytes]) -> None:
    mark = uuid.uuid4().hex
    marked = {**os.environ, descendants.MARK: mark}
    with (
        subprocess.Popen(_SLEEP, start_new_session=True, env=marked) as survivor,
        subprocess.Popen(_SLEEP, start_new_session=True, env={**marked, descendants.MARK: "another"}) as unrelated,
        subprocess.Popen(["true"], start_new_session=True, env=marked) as worker,
    ):
        worker.wait()
        descendants.end(worker.pid, mark)
        assert survivor.wait(30) == -9
        assert (unrelated.poll(), bystander.poll()) == (None, None)
        unrelated.kill()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout[:1] != b"Z"
