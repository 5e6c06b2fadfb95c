"""The wall around the measured process: what it knows, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from lab import Lab

from mlflow_compress.measuring import worker_process
from mlflow_compress.records import Budget


def test_a_worker_knows_nothing_of_the_server(lab: Lab) -> None:
    lab.measure("original")
    seen = [json.loads(path.read_text()) for path in lab.work("original").glob("environment-*.json")]
    assert len(seen) == 2  # prepare and measure
    assert not [name for each in seen for name in each if name.startswith(("MLFLOW_", "DATABRICKS_"))]
    assert "secret" not in json.dumps(seen)
    assert [each.get("HF_HUB_OFFLINE") for each in seen].count("1") == 1
    assert all(each["OMP_NUM_THREADS"] == "1" for each in seen)


def test_what_hangs_is_stopped_with_all_that_it_started(lab: Lab) -> None:
    result = lab.measure("crash:kind=hang", budget=Budget(timeout_seconds=15))
    assert result.status == "failed"
    assert result.reason == "prepare took longer than 15 s and was stopped (--timeout allows more)"
    child = int((lab.work("crash:kind=hang", "model.py", "budget") / "child.pid").read_text())
    for _ in range(100):
        if not is_running(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child was left running")


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"3", b"noise\n", b"\xff\xfe", b'{"stage": "half'])
def test_a_line_that_is_no_event_says_nothing(line: bytes) -> None:
    assert worker_process._event(line) == {}
