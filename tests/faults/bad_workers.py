"""Models whose code harms the worker that measures them; a real command sweeps them, and the damage is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import environment
from mlflow_compress.records import Run
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import open_store

from .scenes import Count

GOOD = "good"
_MEASURES = "sys.argv[1] == 'measure'"
_TIMEOUT_SECONDS = 30
_SECONDS_EACH = 3 * _TIMEOUT_SECONDS  # for both workers of a model, and for logging their results
_BRIEF = ("--iterations", "6", "--seconds", "0", "--max-seconds", "2", "--energy-seconds", "0", "--no-log-model")
_MODEL = """
import os, resource, shutil, signal, stat, subprocess, sys, time
from pathlib import Path
import torch
from torch import nn

PART = Path(f"{{'-'.join(['measure', 'cpu'] if {measures} else ['prepare'])}}.json")

def events():
    fds = [fd for fd in range(3, 64) if Path(f"/proc/self/fd/{{fd}}").exists()]
    return next(fd for fd in fds if stat.S_ISFIFO(os.fstat(fd).st_mode))

def leave(text):
    PART.write_text(text)
    os._exit(0)

def harm():
    {harm}

def model():
    if {when}:
        harm()
    return nn.Linear(4, 2)

def batch(size):
    return torch.rand(size, 4)
"""


@dataclass(frozen=True)
class Harm:
    """What a model's code does.

    Attributes:
        code: Python statements.
        reason: Part of the reason in the failed row.
        is_late: Whether the code runs when the model is measured, not when it is prepared.
    """

    code: str
    reason: str
    is_late: bool = False


_UNREADABLE = "wrote no valid result"
_LATE = f"took longer than {_TIMEOUT_SECONDS} s and was stopped"
_FLOOD = "sent too many progress events and was stopped"
HARMS = {
    "dies of a real-time signal": Harm("os.kill(os.getpid(), 40)", "was killed by signal 40", is_late=True),
    "leaves {}": Harm("leave('{}')", _UNREADABLE),
    "leaves a list": Harm("leave('[1, 2]')", _UNREADABLE, is_late=True),
    "leaves half a record": Harm("""leave('{"outcome": {"sta')""", _UNREADABLE, is_late=True),
    "leaves 200,000 brackets": Harm("leave('[' * 200_000)", _UNREADABLE),
    "leaves a folder": Harm("PART.mkdir(); os._exit(0)", _UNREADABLE, is_late=True),
    "leaves a pipe": Harm("os.mkfifo(PART); os._exit(0)", _UNREADABLE, is_late=True),
    "leaves a link to a device": Harm("PART.symlink_to('/dev/zero'); os._exit(0)", _UNREADABLE),
    "floods the events, no line ends": Harm(
        "fd = events(); [os.write(fd, b'x' * 2**20) for _ in range(10**6)]", _FLOOD
    ),
    "floods the events, line by line": Harm(
        """fd = events(); [os.write(fd, b'{"stage": "a"}\\n' * 4000) for _ in range(10**6)]""", _FLOOD, is_late=True
    ),
    "tells events of wrong types": Harm(
        """os.write(events(), b'{"stage": [], "done": "x", "total": {}}\\n{"turn": 3}\\n[[[\\n'); os._exit(4)""",
        "ended with exit code 4",
    ),
    "leaves a child in a session of its own": Harm(
        "subprocess.Popen(['sleep', '9999'], start_new_session=True, close_fds=False); os._exit(7)",
        "ended with exit code 7",
    ),
    "leaves a daemon that computes": Harm(
        "subprocess.run(['sh', '-c', 'setsid sh -c \"while true; do :; done\" &'], close_fds=False); os._exit(7)",
        "ended with exit code 7",
        is_late=True,
    ),
    "closes all pipes and goes on": Harm("os.closerange(0, 64); time.sleep(9999)", _LATE),
    "stops itself": Harm("os.kill(os.getpid(), signal.SIGSTOP)", _LATE, is_late=True),
    "ignores SIGTERM, with fifty children": Harm(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "[subprocess.Popen(['sleep', '9999'], start_new_session=n % 2 > 0) for n in range(50)]; time.sleep(9999)",
        _LATE,
    ),
    "writes 300 MiB of words": Harm(
        "[os.write(2, b'y' * 2**20) for _ in range(300)]; os.write(2, b'\\nthe end\\n'); os._exit(1)", "the end"
    ),
    "meets a full disk": Harm("resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", "File too large", is_late=True),
    "deletes its folder": Harm("shutil.rmtree(os.getcwd()); os._exit(1)", "ended with exit code 1"),
    "leaves tables that are none": Harm(
        "[Path(name).write_bytes(b'PK' + os.urandom(999)) for name in ('statistics.npz', 'predictions.json')]; "
        "os._exit(1)",
        "ended with exit code 1",
        is_late=True,
    ),
    "leaves 2,000 folders within each other": Harm(
        "[(os.mkdir('d'), os.chdir('d')) for _ in range(2000)]; os._exit(1)", "ended with exit code 1"
    ),
    "leaves pipes in the way of the next": Harm(
        "[os.mkfifo(name) for name in ('measure-cpu.log', 'measure-cpu.json', 'variant.json.partial')]; os._exit(1)",
        "ended with exit code 1",
    ),
}  # fmt: skip


class BadWorkers:
    """A folder with harmful models, in which `compress-bench` runs.

    Args:
        folder: Folder for all files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._environment = environment(folder, MLFLOW_TRACKING_URI=self._uri)

    def play(self, names: Sequence[str]) -> list[Count]:
        """Sweep models with these kinds of harm, and one harmless model, in one command; then count the damage.

        A RUNNING run, a result in the spool, a process that is still alive, or a hanging command counts as stuck.
        """
        stems = [self._model(f"harm_{index}", HARMS[name]) for index, name in enumerate(names)]
        stems.append(self._model(GOOD, Harm("pass", "")))
        recipes = [f"{stem}.yaml" for stem in stems]
        words = ["sweep", *recipes, "--trust", "-e", "harm", "--timeout", str(_TIMEOUT_SECONDS), *_BRIEF]
        code, is_stuck = self._bench(words, _SECONDS_EACH * len(stems))
        stuck = int(is_stuck) + len(self._alive()) + len([path for path in self._spool.iterdir() if path.is_dir()])
        runs = self._runs()
        counts = [self._count(name, stem, runs, code) for name, stem in zip((*names, GOOD), stems, strict=True)]
        counts.append(Count("sqlite", "all of them", "measuring", code, 0, len(runs) - len(stems), stuck))
        return counts

    @property
    def _spool(self) -> Path:
        return self._folder / "spool"

    def _model(self, stem: str, harm: Harm) -> str:
        condition = _MEASURES if harm.is_late else "True"
        code = _MODEL.format(measures=_MEASURES, harm=harm.code, when=condition)
        (self._folder / f"{stem}.py").write_text(code)
        (self._folder / f"{stem}.yaml").write_text(f"family: python\nsource: {stem}.py\nvariants: [original]\n")
        return stem

    def _bench(self, words: Sequence[str], seconds: float) -> tuple[int, bool]:
        """Run a command line; return its exit code, and whether it had to be killed."""
        command = [sys.executable, "-m", "mlflow_compress", *words]
        with (self._folder / "out").open("wb") as output:
            process = subprocess.Popen(command, cwd=self._folder, env=self._environment, stdout=output, stderr=output)
            try:
                return process.wait(seconds), False
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait(), True

    def _runs(self) -> list[Run]:
        store = open_store(self._uri)
        runs = reading.runs(store, {reading.experiments(store)["harm"]: "harm"})
        return [run for run in runs if run.tags.get("compress.role") == "variant"]

    def _count(self, name: str, stem: str, runs: Sequence[Run], code: int) -> Count:
        its_runs = [run for run in runs if run.tags.get("model") == stem]
        running = sum(run.lifecycle == "RUNNING" for run in its_runs)
        lost, twice = int(not any(map(self._is_right, its_runs))), max(0, len(its_runs) - 1)
        return Count("sqlite", name, "measuring", code, lost, twice, running)

    def _is_right(self, run: Run) -> bool:
        """Return whether a run has the expected status and reason for its model."""
        stem, status, reason = (run.tags.get(key, "") for key in ("model", "status", "compress.reason"))
        if stem == GOOD:
            return status == "ok" and "cpu/latency_p50_ms" in run.metrics
        code = (self._folder / f"{stem}.py").read_text()
        (harm,) = [candidate for candidate in HARMS.values() if f"    {candidate.code}\n" in code]
        return status == "failed" and harm.reason in reason and "\n" not in reason

    def _alive(self) -> list[int]:
        """Return the ids of worker processes that are still alive, and kill them."""
        mark = f"COMPRESS_SPOOL={self._spool}".encode()
        pids = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = mark in (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if is_ours and _is_running(path):
                pids.append(int(path.name))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids


def _is_running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
