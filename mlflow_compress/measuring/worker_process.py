"""The process wall: one verb of the worker, in a fresh interpreter of its own.

Whatever the worker does, its events end soon after its time is up, and nothing that it started is left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring import descendants, worker_part
from mlflow_compress.measuring.bounded_log import BoundedLog
from mlflow_compress.measuring.worker import PARENT, UNFINISHED, part_file
from mlflow_compress.measuring.worker_events import WorkerEvents
from mlflow_compress.meters import cgroup
from mlflow_compress.meters import environment as surroundings
from mlflow_compress.plain_text import plain
from mlflow_compress.records import Part, Variant
from mlflow_compress.trust_word import WORD, trust_word

_PROGRAM = ("-m", "mlflow_compress.measuring.worker")
_DROPPED = ("MLFLOW_", "DATABRICKS_")  # the worker has no business with the tracking server, nor with its secrets
_LAST_WORDS_SECONDS = 1.0  # for what is still in the pipes of a worker that has ended
_LONGEST_SECONDS = 10 * 366 * 86_400.0  # that a worker may take: timers take no number that is much larger
_GONE_SECONDS = 10.0  # in which the kernel ends what is killed
_LAST_LINE_CHARACTERS = 300


class Worker:
    """A running worker. Leaving the `with` block ends it, and whatever it started.

    Beside it three threads and a timer wait for the kernel: for events, for standard error, for its end, and for the
    end of its time. While it is silent none of them runs.

    Args:
        verb: `prepare`, `measure`, `time` or `try`.
        variant: what it works on.
        folder: the folder with `variant.json`; the part and the log are left there.
        device: `cpu` or `cuda`, to measure on.
        how: to measure: `score` scores quality too. To time: which launch it is of how many, `2/5`.
    """

    def __init__(self, verb: str, variant: Variant, folder: Path, device: str = "", how: str = "") -> None:
        self._verb = verb
        self._told = "the timing" if verb == "time" else verb  # of what went wrong
        self._timeout = min(variant.budget.timeout_seconds, _LONGEST_SECONDS)
        self._has_less = verb == "time" and how != "1/1"  # a further launch, whose time is that of the first
        self._found = folder / part_file(verb, device)
        self._found.unlink(missing_ok=True)
        log = _new_file(folder / f"{self._found.stem}.log")
        self._mark = uuid.uuid4().hex
        self._stopped = ""  # for what, in words
        words = [verb, str(folder), *filter(None, (device, how))]
        self._process = subprocess.Popen(
            [sys.executable, *_PROGRAM, *words],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**environment(variant, verb), descendants.MARK: self._mark},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if os.name != "nt":
            os.set_blocking(self._process.stdin.fileno(), False)  # one who does not listen is not waited for
        self._log = BoundedLog(self._process.stderr, log)
        self._events = WorkerEvents(self._process.stdout, self._flooded)
        self._deadline = time.monotonic() + self._timeout
        self._timer = threading.Timer(self._timeout, self._late)
        self._timer.daemon = True
        self._timer.start()
        self._reaper = threading.Thread(target=self._wait_for_the_end, daemon=True)
        self._reaper.start()

    def __enter__(self) -> Worker:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._timer.cancel()
        if self._reaper.is_alive():
            descendants.end(self.pid, self._mark)
            self._reaper.join(_GONE_SECONDS)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._process.pid

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Return its events of progress until it ends, as `worker_events.event` reads them."""
        while (event := self._events.next(self._deadline + _GONE_SECONDS - time.monotonic())) is not None:
            yield event

    def tell(self, word: str) -> None:
        """Write a line to it; one that is gone does not mind."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word.encode() + b"\n")

    def part(self) -> Part:
        """Read what it left, after its last event.

        Raises:
            WorkerError: it left nothing: it crashed, was killed, or ran out of time; or nothing that is a part.
        """
        try:
            part = worker_part.read(self._found)
            if part.quality != UNFINISHED:
                return part
            reason = f"scoring {self._stopped or _death(self._process.poll())}; what was timed before is kept"
            return dataclasses.replace(part, quality=dataclasses.replace(UNFINISHED, reason=reason))
        except FileNotFoundError:
            pass
        except WorkerError as error:
            raise WorkerError(f"{self._told} {error}") from error
        if self._stopped:
            raise WorkerError(f"{self._told} {self._stopped}")
        raise WorkerError(f"{self._told} {_death(self._process.poll())}{self._last_words()}")

    def _late(self) -> None:
        advice = "" if self._has_less else " (--timeout allows more)"
        self._stop(f"took longer than {self._timeout:.0f} s and was stopped{advice}")

    def _flooded(self) -> None:
        self._stop("told of more progress than anybody can read and was stopped")

    def _stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        descendants.end(self.pid, self._mark)

    def _wait_for_the_end(self) -> None:
        """Wait until it ends, end what it left running, and read the rest of what it said."""
        self._process.wait()
        try:
            descendants.end(self.pid, self._mark)
        finally:
            self._log.close(_LAST_WORDS_SECONDS)
            self._events.end(_LAST_WORDS_SECONDS)

    def _last_words(self) -> str:
        line = plain(self._log.last_line(), _LAST_LINE_CHARACTERS)
        return f". Its last line: {line}" if line else ""


def _new_file(path: Path) -> IO[bytes]:
    """Open a new file in the place of whatever a worker left there: a link, or what blocks whoever opens it."""
    path.unlink(missing_ok=True)
    return path.open("xb", buffering=0)


def environment(variant: Variant, verb: str) -> dict[str, str]:
    """Return the worker's environment: the user's, less what could disturb or leak."""
    cores = os.cpu_count() or 1
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    package = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH")]))
    kept["PYTHONUNBUFFERED"] = "1"
    kept[PARENT] = str(os.getpid())
    kept["TOKENIZERS_PARALLELISM"] = "false"
    kept.setdefault("YOLO_AUTOINSTALL", "false")  # ultralytics reads it as it is imported, and would run pip
    kept[WORD] = trust_word()
    if verb != "prepare":
        kept["HF_HUB_OFFLINE"] = "1"  # all that is needed was saved
    if variant.threads is not None:
        kept["OMP_NUM_THREADS"] = kept["MKL_NUM_THREADS"] = str(variant.threads)
    elif (cgroup.core_limit() or cores) < cores:  # libraries see the cores, and not how much of their time there is
        kept.setdefault("OMP_NUM_THREADS", str(surroundings.most_threads()))
    return kept


def _death(code: int | None) -> str:
    if code is None:
        return "can't be ended: the kernel holds it"
    if code >= 0:
        return f"ended with exit code {code} and left no result"
    advice = " (out of memory? The kernel kills so)" if -code == signal.SIGKILL else ""
    return f"was killed by {_signal_name(-code)}{advice}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have none
        return f"signal {number}"
