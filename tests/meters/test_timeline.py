"""The memory of another process over time."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mlflow_compress.meters import timeline
from mlflow_compress.meters.timeline import Timeline

GROWS = "import time; time.sleep(0.6); kept = bytearray(b'x') * (100 * 2**20); time.sleep(1.2)"


def test_what_a_process_takes_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", GROWS]) as process, Timeline(process.pid) as series:
        process.wait()
        time.sleep(0.2)  # sampling ends with the process, without an error
    samples = series.samples("cpu")
    assert samples == {"cpu/ram_timeline_s": series.seconds, "cpu/ram_timeline_mib": series.mib}
    assert series.seconds == sorted(series.seconds)
    assert max(series.mib) - series.mib[0] > 90


def test_a_long_time_has_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_FIRST_INTERVAL_SECONDS", 0.001)
    monkeypatch.setattr(timeline, "_MOST_POINTS", 8)
    sleeps = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    with subprocess.Popen(sleeps) as process, Timeline(process.pid) as series:
        process.wait()
    assert 1 <= len(series.mib) == len(series.seconds) <= 8
