"""Processes, signals and locks on macOS and Windows, by fakes of what these systems lack and have."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mlflow_compress.measuring import checks, descendants, machine_lock, worker, worker_process
from mlflow_compress.meters import environment
from mlflow_compress.meters.usage import Usage
from mlflow_compress.sweeping import ray_node

_OF_POSIX = ("killpg", "getsid", "getuid", "sched_getaffinity", "sched_setaffinity")


class Process:
    """A fake psutil process.

    Args:
        pid: Its id.
        children: Its children.
        command: Its command line.
        environment: Its environment; None: the system does not show it.
    """

    def __init__(
        self,
        pid: int,
        children: tuple[Process, ...] = (),
        command: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.pid, self._children, self.command, self._environment = pid, children, command, environment
        self.is_killed = False

    def children(self, recursive: bool = False) -> list[Process]:
        below = [child for own in self._children for child in own.children(recursive=True)] if recursive else []
        return [*self._children, *below]

    def cmdline(self) -> list[str]:
        return list(self.command)

    def environ(self) -> Mapping[str, str]:
        if self._environment is None:
            raise psutil.AccessDenied(self.pid)
        return self._environment

    def is_running(self) -> bool:
        return not self.is_killed

    def status(self) -> str:
        return "running"

    def kill(self) -> None:
        self.is_killed = True

    def wait(self) -> None:
        if self.pid == 404:
            raise psutil.NoSuchProcess(404)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what Windows lacks."""
    monkeypatch.setattr(sys, "platform", "win32")
    for name in _OF_POSIX:
        monkeypatch.delattr(os, name, raising=False)


def shown(monkeypatch: pytest.MonkeyPatch, *processes: Process, mine: Process | None = None) -> None:
    """Show these processes to psutil."""
    by_pid = {process.pid: process for process in processes}

    def process_of(pid: int | None = None) -> Process:
        if pid is None:
            assert mine is not None
            return mine
        if pid not in by_pid:
            raise psutil.NoSuchProcess(pid)
        return by_pid[pid]

    monkeypatch.setattr(psutil, "Process", process_of)
    monkeypatch.setattr(psutil, "pids", lambda: list(by_pid))


@pytest.mark.usefixtures("windows")
def test_without_process_groups_a_worker_ends_by_its_tree_and_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    grandchild = Process(12)
    worker_tree = Process(10, (Process(11, (grandchild,)),))
    survivor = Process(20, environment={descendants.MARK: "mine"})
    other, hidden = Process(30, environment={descendants.MARK: "another"}), Process(40)
    shown(monkeypatch, worker_tree, *worker_tree.children(recursive=True), survivor, other, hidden)
    descendants.end(10, "mine")
    assert all(process.is_killed for process in (worker_tree, grandchild, survivor))
    assert not other.is_killed
    assert not hidden.is_killed


@pytest.mark.usefixtures("windows")
def test_without_process_groups_a_node_kills_the_trees_of_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = Process(12)
    measuring = Process(11, (helper,), ("python", "-m", ray_node._WORKER, "measure"))
    raylet = Process(13, command=("raylet",))
    shown(monkeypatch, mine=Process(10, (measuring, raylet)))
    ray_node._kill_workers()
    assert measuring.is_killed
    assert helper.is_killed
    assert not raylet.is_killed


@pytest.mark.parametrize(
    ("system", "arguments"),
    [
        ("win32", {"creationflags": 512}),
        ("darwin", {"start_new_session": True}),
        ("linux", {"start_new_session": True}),
    ],
)
def test_the_terminals_ctrl_c_does_not_reach_the_worker(
    monkeypatch: pytest.MonkeyPatch, system: str, arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    assert worker_process._apart() == arguments


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0xC0000005, "was ended by Windows with code 0xC0000005 (access violation)"),
        (0xC0000017, "was ended by Windows with code 0xC0000017 (out of memory)"),
        (0xC0000374, "was ended by Windows with code 0xC0000374"),
        (1, "ended with exit code 1 and wrote no result"),
        (None, "can't be ended: it hangs in the kernel"),
    ],
)
def test_how_a_worker_died_on_windows(code: int | None, reason: str) -> None:
    assert worker_process._death(code) == reason


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize("parent", [10, 404])
def test_a_worker_does_not_outlive_its_parent(monkeypatch: pytest.MonkeyPatch, exits: list[int], parent: int) -> None:
    helper = Process(12)
    shown(monkeypatch, Process(10), mine=Process(11, (helper,)))
    worker._outlive_no_parent(parent)
    assert helper.is_killed
    assert exits == [1]


def test_where_the_kernel_does_not_end_orphans_a_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[dict[str, Any]] = []

    def thread(**arguments: Any) -> SimpleNamespace:
        return SimpleNamespace(start=lambda: threads.append(arguments))

    monkeypatch.setattr(threading, "Thread", thread)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv(worker.PARENT, "4711")
    worker._die_with_parent()
    assert threads == [{"target": worker._outlive_no_parent, "args": (4711,), "daemon": True}]


def test_all_users_of_a_mac_share_one_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPRESS_LOCK", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/var/folders/of/this/user")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine_lock.lock_file() == Path("/tmp/mlflow-compress.lock")
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine_lock.lock_file() == Path("/var/folders/of/this/user/mlflow-compress.lock")


def test_what_windows_does_not_count_is_not_judged() -> None:
    used = Usage(wall_s=10, cpu_s=1, switches=None, minor_faults=None, major_faults=None, throttled=0)
    assert checks.usage(used, 10, 2, "cpu") == []


def test_an_operator_that_mps_lacks_is_named() -> None:
    error = NotImplementedError(
        "The operator 'aten::_linalg_svd.U' is not currently implemented for the MPS device. If you want this op to be "
        "added in priority, please comment on the tracker."
    )
    assert worker._missing_operator(error) == (
        f"{environment.runtime('torch')} has no operator aten::_linalg_svd.U for MPS; "
        "PYTORCH_ENABLE_MPS_FALLBACK=1 runs it on the CPU instead"
    )
    assert worker._missing_operator(NotImplementedError("forward")) is None
