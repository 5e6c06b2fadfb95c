"""Two processes that take turns, on the same cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlflow_compress.measuring import same_cores
from mlflow_compress.measuring.same_cores import SameCores, choose, wait_until_idle

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of threads")

_CORES = (0, 1, 2, 3, 4, 5, 6, 7)
_WITH_A_THREAD = """
import sys, threading
threading.Thread(target=sys.stdin.read, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("threads", "number", "cores"),
    [
        (1, 0, (0,)),
        (1, 1, (1,)),
        (1, 9, (1,)),
        (3, 0, (0, 1, 2)),
        (3, 2, (6, 7, 0)),
        (None, 0, _CORES),
        (None, 2, (2, 3, 4, 5, 6, 7, 0, 1)),
        (8, 1, (1, 2, 3, 4, 5, 6, 7, 0)),
        (64, 1, (1, 2, 3, 4, 5, 6, 7, 0)),
    ],
)
def test_each_pair_gets_the_next_cores(threads: int | None, number: int, cores: tuple[int, ...]) -> None:
    assert choose(_CORES, threads, number) == cores


@pytest.mark.parametrize("cores", [(), (3,)])
def test_without_a_choice_no_thread_is_pinned(cores: tuple[int, ...]) -> None:
    assert choose(cores, 1, 2) == ()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """Yield a process with two sleeping threads."""
    command = [sys.executable, "-c", _WITH_A_THREAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def _affinities(pid: int) -> dict[bool, set[int]]:
    """Return the cores of the main thread (True) and of the other one (False)."""
    threads = (int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir())
    return {thread == pid: os.sched_getaffinity(thread) for thread in threads}


def test_threads_are_held_and_released(child: subprocess.Popen[str], tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("this machine has one core")
    first = min(allowed)
    cores = SameCores(1, len(allowed), tmp_path)
    cores.hold(child.pid)
    assert _affinities(child.pid) == {True: {first}, False: {first}}
    cores.release(child.pid)
    assert _affinities(child.pid) == {True: allowed, False: allowed}
    SameCores(None, 0, tmp_path).hold(child.pid)  # the helper threads may need all cores
    assert _affinities(child.pid) == {True: {first}, False: allowed}
    child.kill()
    child.wait()
    cores.hold(child.pid)  # the process is gone, but nothing is raised


def test_a_second_thread_of_a_core_is_used_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for core, siblings in {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}.items():
        topology = tmp_path / f"sys/devices/system/cpu/cpu{core}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    affinities: dict[int, set[int]] = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: affinities.update({thread: set(cores)}))
    SameCores(2, 0, tmp_path).hold(os.getpid())
    assert affinities[os.getpid()] == {0}
    assert set.union(*affinities.values()) <= {0, 2}
    SameCores(2, 1, tmp_path).hold(os.getpid())
    assert affinities[os.getpid()] == {1}


def test_a_process_that_spins_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr(time, "sleep", looks.append)
    assert same_cores._is_running(os.getpid())  # the thread that asks
    assert not same_cores._is_running(2**22 + 1)  # no such process
    times = iter((0.0, 0.01, 0.02, 0.04, 0.06, 9.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    wait_until_idle(os.getpid())
    assert len(looks) == 3


def test_windows_holds_whole_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[int, list[int] | None]] = []

    class Process:
        def __init__(self, pid: int = 0) -> None:
            self.pid = pid

        def cpu_affinity(self, cores: list[int] | None = None) -> list[int]:
            if self.pid == 8:
                raise psutil.NoSuchProcess(8)
            if cores is not None:
                held.append((self.pid, cores))
            return [0, 1, 2, 3]

    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(psutil, "Process", Process)
    cores = SameCores(2, 1)
    cores.hold(7, 8, 9)
    assert held == [(7, [2, 3]), (9, [2, 3])]
    cores.release(7)
    assert held[-1] == (7, [0, 1, 2, 3])


def test_without_a_report_spinning_threads_get_the_usual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    wait_until_idle(os.getpid())
    assert pauses == [same_cores._USUAL_SPIN_SECONDS]
