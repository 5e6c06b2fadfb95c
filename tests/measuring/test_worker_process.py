"""The isolation of the measured process: its environment, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring import worker_process
from mlflow_compress.measuring.worker import UNFINISHED
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters import cgroup
from mlflow_compress.records import Budget, Outcome, Part, Variant, to_json


def test_a_worker_knows_nothing_of_the_server(lab: Lab) -> None:
    lab.measure("original")
    environments = [json.loads(path.read_text()) for path in lab.work("original").glob("environment-*.json")]
    assert len(environments) >= 2  # prepare, measure, and pairs with other variants
    assert not [name for variables in environments for name in variables if name.startswith(("MLFLOW_", "DATABRICKS_"))]
    assert "secret" not in json.dumps(environments)
    may_download = [variables for variables in environments if variables.get("HF_HUB_OFFLINE") != "1"]
    assert len(may_download) == 1, "only preparing may"
    assert all(variables["OMP_NUM_THREADS"] == "1" for variables in environments)
    assert all(variables["DO_NOT_TRACK"] == "1" for variables in environments)


def test_libraries_get_the_number_of_threads_that_a_container_has_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = Variant("tiny", "original", "alpha", "python", "model.py")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(cgroup, "core_limit", lambda root=None: None)
    assert "OMP_NUM_THREADS" not in worker_process.environment(variant, "measure")
    monkeypatch.setattr(cgroup, "core_limit", lambda root=None: 2.5)
    assert worker_process.environment(variant, "measure")["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user knows better
    assert worker_process.environment(variant, "measure")["OMP_NUM_THREADS"] == "5"


def test_ultralytics_is_kept_from_running_pip_unless_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = Variant("tiny", "original", "alpha", "python", "model.py")
    monkeypatch.delenv("YOLO_AUTOINSTALL", raising=False)
    assert worker_process.environment(variant, "measure")["YOLO_AUTOINSTALL"] == "false"
    monkeypatch.setenv("YOLO_AUTOINSTALL", "true")
    assert worker_process.environment(variant, "measure")["YOLO_AUTOINSTALL"] == "true"


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


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and has its signals")
_HEAD = """
import os, signal, subprocess, sys, time
from pathlib import Path

def leave(text):
    Path("prepare.json").write_text(text)
"""
_FLOOD = "sent too many progress events and was stopped"
_ENDED, _NOTHING = "ended with exit code", " and wrote no result"
_NO_TERMINAL = "OSError: [Errno 6] No such device or address: '/dev/tty'"
_LATE = "took longer than 2 s and was stopped (--timeout allows more)"


@pytest.fixture
def ends_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that runs a program as the worker for so many seconds, and returns why it wrote no part."""

    def run(program: str, seconds: int = 60) -> str:
        fake = tmp_path / "fake.py"
        fake.write_text(_HEAD + program)
        monkeypatch.setattr(worker_process, "_PROGRAM", (str(fake),))
        folder = tmp_path / "work"
        folder.mkdir()
        variant = Variant("tiny", "original", "alpha", "python", "x.py", budget=Budget(timeout_seconds=seconds))
        with Worker("prepare", variant, folder) as worker:
            for _ in worker.events():
                pass
            with pytest.raises(WorkerError) as raised:
                worker.part()
        return str(raised.value)

    return run


@pytest.mark.full
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("os.kill(os.getpid(), 40)", "was killed by signal 40"),
        ("os.kill(os.getpid(), 34)", "was killed by SIGRTMIN"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL (out of memory? Then the kernel kills processes)"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", _LATE),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(999)", _LATE),
        ("os.close(1); time.sleep(999)", _LATE),
        ("while True: os.write(1, b'x' * 2**20)", _FLOOD),
        ('while True: os.write(1, b\'{"stage": "a"}\\n\' * 4000)', _FLOOD),
        ("os.write(2, b'first\\n  \\nlast\\n \\n'); sys.exit(3)", f"{_ENDED} 3{_NOTHING}. Its last line: last"),
        ("os.write(2, b'e' * 5_000_000); sys.exit(1)", f"{_ENDED} 1{_NOTHING}. Its last line: {'e' * 299}…"),
        ("Path('prepare.log').unlink(); os.mkfifo('prepare.log'); sys.exit(1)", f"{_ENDED} 1{_NOTHING}"),
        ("open('/dev/tty', 'w')", f"{_ENDED} 1{_NOTHING}. Its last line: {_NO_TERMINAL}"),
    ],
)
@needs_linux
def test_however_a_worker_ends_one_sentence_says_why(ends_with: Callable[..., str], program: str, reason: str) -> None:
    assert ends_with(program, 2 if reason == _LATE else 60) == f"prepare {reason}"


@pytest.mark.full
@needs_linux
def test_a_time_that_no_timer_takes_is_as_none(ends_with: Callable[..., str]) -> None:
    assert ends_with("sys.exit(3)", 10**12) == f"prepare {_ENDED} 3{_NOTHING}"


@pytest.mark.full
def test_what_was_timed_stays_when_scoring_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Part(Outcome("ok"), measurements={"cpu/latency_p50_ms": 5.0}, quality=UNFINISHED)
    fake = tmp_path / "fake.py"
    fake.write_text(f"{_HEAD}\nleave({json.dumps(to_json(timed))!r})\ntime.sleep(999)")
    monkeypatch.setattr(worker_process, "_PROGRAM", (str(fake),))
    variant = Variant("tiny", "original", "alpha", "python", "x.py", budget=Budget(timeout_seconds=5))
    with Worker("prepare", variant, tmp_path) as worker:
        for _ in worker.events():
            pass
        part = worker.part()
    assert part.measurements == timed.measurements
    assert part.quality is not None
    assert part.quality.status == "failed"
    assert part.quality.reason == (
        "scoring took longer than 5 s and was stopped (--timeout allows more); the timing is kept"
    )


@pytest.mark.full
@pytest.mark.parametrize(
    "start",
    [
        "subprocess.Popen(['sleep', '999'], start_new_session=True)",
        "[subprocess.Popen(['sleep', '999'], start_new_session=bool(n % 2)) for n in range(50)]",
        "subprocess.Popen(['sh', '-c', 'setsid sh -c \"sleep 999 & sleep 999 &\" &']); time.sleep(0.5)",
    ],
    ids=["in a session of its own", "fifty", "a daemon"],
)
@pytest.mark.parametrize("end", ["sys.exit(7)", "time.sleep(999)", "os.kill(os.getpid(), 11)"])
@needs_linux
def test_nothing_that_a_worker_started_outlives_it(
    ends_with: Callable[..., str], tmp_path: Path, start: str, end: str
) -> None:
    """They keep the pipes of the worker open: waiting for these to close would never end."""
    reason = ends_with(f"{start}\n{end}", 2 if "sleep" in end else 60)
    assert reason.startswith(("prepare ended with exit code 7", f"prepare {_LATE}", "prepare was killed by SIGSEGV"))
    assert _running_in(tmp_path / "work") == []


def _running_in(folder: Path) -> list[int]:
    """Return the ids of the processes with this working folder."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cwd").readlink() == folder and is_running(int(path.name)):
                pids.append(int(path.name))
    return pids


@pytest.mark.full
@needs_linux
def test_a_flood_of_words_leaves_the_two_ends_of_the_log(ends_with: Callable[..., str], tmp_path: Path) -> None:
    program = "os.write(2, b'begin\\n')\nfor _ in range(100): os.write(2, b'x' * 2**20)\nos.write(2, b'\\nend')"
    assert ends_with(program) == "prepare ended with exit code 0 and wrote no result. Its last line: end"
    log = (tmp_path / "work" / "prepare.log").read_bytes()
    assert log.startswith(b"begin\nxxx")
    assert log.endswith(b"xxx\nend")
    assert len(log) < 300_000
    assert b"\n[104,595,466 bytes omitted]\n" in log


@pytest.mark.full
@needs_linux
def test_what_a_worker_left_in_the_way_of_the_next_one_blocks_nobody(
    ends_with: Callable[..., str], tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("mine")
    work = tmp_path / "work"
    ends_with("os.mkfifo('measure-cpu.log'); os.symlink('../theirs', 'prepare.partial')")
    (work / "prepare.log").unlink()
    (work / "prepare.log").symlink_to(theirs)
    variant = Variant("tiny", "original", "alpha", "python", "x.py", budget=Budget(timeout_seconds=2))
    for verb, device in (("prepare", ""), ("measure", "cpu")):
        with Worker(verb, variant, work, device) as worker:
            assert list(worker.events()) == []
    assert theirs.read_text() == "mine"


@pytest.mark.full
@needs_linux
def test_a_worker_that_does_not_read_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe to it fills, and writing to a full pipe would block."""
    fake = tmp_path / "fake.py"
    fake.write_text("import time\ntime.sleep(999)")
    monkeypatch.setattr(worker_process, "_PROGRAM", (str(fake),))
    variant = Variant("tiny", "original", "alpha", "python", "x.py", budget=Budget(timeout_seconds=60))
    with Worker("prepare", variant, tmp_path) as worker:
        for _ in range(40_000):
            worker.tell("go")
