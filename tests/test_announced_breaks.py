"""Deprecation warnings are listed, each with a test that caused it; a suite reports that it lost a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import announced_breaks
import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the suite's own configuration on three test files with this code."""
    for index in range(3):
        (folder / f"test_{index}.py").write_text(code.replace("INDEX", str(index)))
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=120, cwd=folder, env=environment
    )


def test_a_suite_with_a_killed_worker_ends_and_says_so(tmp_path: Path) -> None:
    code = """
import os, signal, time
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(number):
    time.sleep(0.05)
    if INDEX == 1 and number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
"""
    process = run(tmp_path, code, "-n", "2")
    assert process.returncode == 1, process.stdout
    assert "crashed while running 'test_1.py::test_one[2]'" in process.stdout
    assert "1 failed" in process.stdout


def test_what_is_announced_is_listed_from_all_processes(tmp_path: Path) -> None:
    code = """
import logging, warnings

def test_one():
    warnings.warn("number INDEX will be gone", FutureWarning)
    warnings.warn("`torch.jit.trace` is deprecated", DeprecationWarning)
    warnings.warn("nothing of the kind")
    logging.getLogger("transformers.models").warning("`past` is deprecated, INDEX")
"""
    process = run(tmp_path, code, "-n", "2", "-p", "announced_breaks")
    assert process.returncode == 0, process.stdout
    assert "1 known (see KNOWN in tests/announced_breaks.py), 6 new" in process.stdout
    for index in range(3):
        assert f"NEW: `past` is deprecated, {index}  (test_{index}.py::test_one)" in process.stdout
    assert "NEW: nothing" not in process.stdout


def test_every_known_one_is_dated() -> None:
    for reason in announced_breaks.KNOWN.values():
        assert reason[:4].isdigit()
        assert reason[4:6].startswith("-")


def test_words_of_the_log_become_a_warning() -> None:
    import logging

    handler = announced_breaks._Announcements()
    with pytest.warns(FutureWarning, match="will be removed"):
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "it will be removed", None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "all is well", None, None))
