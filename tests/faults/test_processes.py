"""Processes of real measurements are killed: no worker outlives its parent, and in the end everything is measured."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.servers import environment
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import open_store

CODE = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def batch(size):
    return torch.rand(size, 4)
"""
BRIEF = ("--iterations", "6", "--seconds", "0", "--max-seconds", "2", "--energy-seconds", "0", "--no-log-model")


class Lab:
    """A folder with a small model, in which `compress-bench` runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "small.py").write_text(CODE)
        (folder / "small.yaml").write_text("family: python\nsource: small.py\nvariants: [original, bf16]\n")
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.words = [sys.executable, "-m", "mlflow_compress", "sweep", "small.yaml", "--trust", "-e", "killed", *BRIEF]
        self.environment = environment(folder, MLFLOW_TRACKING_URI=self.uri)

    def kill_when(self, message: str, who: str) -> int:
        """Sweep; after this message, kill the worker or the parent itself. Return the parent's exit code."""
        with subprocess.Popen(
            self.words,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            output = ""
            while message not in output:
                line = process.stderr.readline()
                assert line, output
                output += line
            (worker,) = self.workers()
            os.kill(worker if who == "worker" else process.pid, signal.SIGKILL)
            if who == "parent":
                process.wait()
                self.wait_for_the_end_of(worker)
            process.communicate()
            return process.returncode

    def workers(self) -> list[int]:
        """Return the ids of the workers that run for this folder."""
        pids = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if b"mlflow_compress.measuring.worker" in words and bytes(self.folder) in words:
                pids.append(int(path.name))
        return pids

    def wait_for_the_end_of(self, worker: int) -> None:
        for _ in range(100):
            if worker not in self.workers():
                return
            time.sleep(0.1)
        pytest.fail("the worker outlived its parent")


@pytest.mark.extra
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_a_killed_variant_is_measured_by_the_next_sweep(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path)
    lab = Lab(tmp_path)
    assert lab.kill_when("original: loading", "parent") == -signal.SIGKILL
    assert lab.kill_when("original: timing on cpu", "parent") == -signal.SIGKILL
    assert len(list((tmp_path / "spool").iterdir())) > 0
    assert lab.kill_when("bf16: loading", "worker") == 1  # the other one was measured, and this one failed
    done = subprocess.run(lab.words, cwd=tmp_path, env=lab.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "original: already measured" in done.stderr
    assert list((tmp_path / "spool").iterdir()) == []
    store = open_store(lab.uri)
    number = reading.experiments(store)["killed"]
    rows = sorted(
        (run.tags["method"], run.lifecycle, run.tags["status"]) for run in reading.runs(store, {number: "killed"})
    )
    assert rows == [("bf16", "FAILED", "failed"), ("bf16", "FINISHED", "ok"), ("original", "FINISHED", "ok")]
