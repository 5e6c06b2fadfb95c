from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mlflow_compress.meters import memory
from mlflow_compress.meters.memory import MemoryMeter

HAS_MARK = memory._keeps_mark(Path("/proc/self"))


def proc(folder: Path, mib: float, writable: bool = True) -> Path:
    """Write a fake `/proc/self` with this peak memory."""
    kib = int(mib * 1024)
    (folder / "status").write_text(f"Name:\tpython\nVmPeak:\t 9999999 kB\nVmHWM:\t {kib} kB\nVmRSS:\t 1 kB\n")
    if writable:
        (folder / "clear_refs").touch(exist_ok=True)
    elif not (folder / "clear_refs").exists():
        (folder / "clear_refs").mkdir()  # cannot be written to, not even by root
    return folder


def test_each_phase_has_its_peak(tmp_path: Path) -> None:
    meter = MemoryMeter(proc(tmp_path, 100))
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert meter.source == "kernel"
    meter.end_phase("import")
    proc(tmp_path, 700.5)
    meter.end_phase("load")
    proc(tmp_path, 300)
    meter.end_phase("run")
    assert meter.numbers("cpu") == {
        "cpu/ram_peak_mib": 700.5,
        "cpu/ram_baseline_mib": 100,
        "cpu/ram_model_mib": 600.5,
        "cpu/ram_peak_import_mib": 100,
        "cpu/ram_peak_load_mib": 700.5,
        "cpu/ram_peak_run_mib": 300,
    }


def test_a_mark_that_cannot_be_reset_says_so(tmp_path: Path) -> None:
    meter = MemoryMeter(proc(tmp_path, 100, writable=False))
    assert meter.source == "kernel, never reset"
    meter.end_phase("import")
    assert meter.peaks_mib == {"import": 100}


def test_without_a_mark_memory_is_sampled(tmp_path: Path) -> None:
    """Use a separate process: the sampler never ends."""
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t 5 kB\n")
    code = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from mlflow_compress.meters.memory import MemoryMeter
found = []
for folder in sys.argv[1:]:
    meter = MemoryMeter(Path(folder))
    meter.end_phase("import")
    ballast = b"x" * (80 * 2**20)
    meter.end_phase("load")
    del ballast
    found.append([meter.source, meter.numbers("cpu")])
print(json.dumps(found))
"""
    command = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "no such folder")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for source, numbers in json.loads(done.stdout):
        assert source == "sampled every 2 ms"
        assert numbers["cpu/ram_peak_mib"] > 80
        assert numbers["cpu/ram_model_mib"] >= 75


@pytest.mark.skipif(not HAS_MARK, reason="this kernel keeps no high-water mark")
def test_a_spike_is_seen_in_its_phase_and_not_in_the_next() -> None:
    code = """
import json
import numpy as np
from mlflow_compress.meters.memory import MemoryMeter
meter = MemoryMeter()
meter.end_phase("import")
np.ones(300 * 2**17)  # 300 MiB of float64, freed at once
meter.end_phase("load")
np.ones(2**10)
meter.end_phase("run")
print(json.dumps([meter.source, meter.baseline_mib, meter.peaks_mib, meter.numbers("cpu")]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    source, baseline, peaks, numbers = json.loads(done.stdout)
    assert 295 <= peaks["load"] - baseline <= 320  # the kernel counts in batches of pages
    assert 295 <= numbers["cpu/ram_model_mib"] <= 320
    if source == "kernel":
        assert peaks["run"] - baseline < 20


class Process:
    """A fake psutil process, and the mark of its kernel."""

    def __init__(self) -> None:
        self.rss = self.mark = 100 * 2**20

    def memory_info(self) -> SimpleNamespace:
        return SimpleNamespace(rss=self.rss, peak_wset=self.mark)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_a_mark_that_rose_is_the_peak_of_its_phase(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str
) -> None:
    process = Process()
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=process.mark))
    monkeypatch.setitem(sys.modules, "resource", usage)
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    meter = MemoryMeter(tmp_path)
    assert meter.source == "kernel, and sampled every 2 ms"
    meter.end_phase("import")
    process.rss, process.mark = 150 * 2**20, 700 * 2**20  # a peak that no sample saw
    meter.end_phase("load")
    process.rss = 300 * 2**20
    meter.end_phase("run")
    assert meter.peaks_mib == {"import": 100, "load": 700, "run": 300}
    assert meter.numbers("cpu")["cpu/ram_model_mib"] == 600
