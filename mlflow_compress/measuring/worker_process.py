"""Process isolation: run one verb of the worker in a fresh interpreter.

Whatever the worker does, its events end soon after its time is up, and no process that it started remains.
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

from mlflow_compress.compression import usage_reports
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
_DROPPED = ("MLFLOW_", "DATABRICKS_")  # the worker needs neither the tracking server nor its secrets
_LAST_WORDS_SECONDS = 1.0  # to read the pipes of a worker that has ended
_LONGEST_SECONDS = 10 * 366 * 86_400.0  # that a worker may take: timers accept no much larger number
_GONE_SECONDS = 10.0  # for the kernel to end killed processes
_LAST_LINE_CHARACTERS = 300
_FIRST_CRASH = 0xC0000000  # exit codes of Windows from here on are errors of the system
# Source: NTSTATUS values, MS-ERREF
_CRASHES = {
    0xC0000005: "access violation",
    0xC0000017: "out of memory",
    0xC000001D: "illegal instruction: a library was built for another processor",
    0xC00000FD: "stack overflow",
    0xC000012D: "out of memory",
    0xC0000409: "the program ended itself",
}


class Worker:
    """A running worker. Leaving the `with` block ends it, and all processes that it started.

    Three threads and a timer wait in the kernel: for events, for standard error, for its end, and for its timeout.
    None of them runs while the worker sends nothing.

    Args:
        verb: `prepare`, `measure`, `time` or `try`.
        variant: The variant.
        folder: Folder with `variant.json`; the part and the log are written there.
        device: Device to measure on, `cpu` or an accelerator.
        how: For `measure`: `score` also scores quality. For `time`: the launch and the number of launches, `2/5`.
    """

    def __init__(self, verb: str, variant: Variant, folder: Path, device: str = "", how: str = "") -> None:
        self._verb = verb
        self._subject = "the timing" if verb == "time" else verb  # of error messages
        self._timeout = min(variant.budget.timeout_seconds, _LONGEST_SECONDS)
        self._is_further = verb == "time" and how != "1/1"  # a further launch may take only as long as the first
        self._part_file = folder / part_file(verb, device)
        self._part_file.unlink(missing_ok=True)
        log = _new_file(folder / f"{self._part_file.stem}.log")
        self._mark = uuid.uuid4().hex
        self._stopped = ""  # why it was stopped
        words = [verb, str(folder), *filter(None, (device, how))]
        self._process = subprocess.Popen(
            [sys.executable, *_PROGRAM, *words],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**environment(variant, verb), descendants.MARK: self._mark},
            **_apart(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if os.name != "nt":
            os.set_blocking(self._process.stdin.fileno(), False)  # do not wait for a worker that does not read
        self._log = BoundedLog(self._process.stderr, log)
        self._events = WorkerEvents(self._process.stdout, self._flooded)
        self._deadline = time.monotonic() + self._timeout
        self._timer = threading.Timer(self._timeout, self._late)
        self._timer.daemon = True
        self._timer.start()
        self._reaper = threading.Thread(target=self._wait_for_the_end, daemon=True)
        self._reaper.start()

    def __enter__(self) -> Worker:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker."""
        self._timer.cancel()
        if self._reaper.is_alive():
            descendants.end(self.pid, self._mark)
            self._reaper.join(_GONE_SECONDS)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Yield its progress events until it ends (see `worker_events.event`)."""
        while (event := self._events.next(self._deadline + _GONE_SECONDS - time.monotonic())) is not None:
            yield event

    def tell(self, word: str) -> None:
        """Write a line to the worker. If it is gone, nothing happens."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word.encode() + b"\n")

    def part(self) -> Part:
        """Read the part that the worker wrote, after its last event.

        Raises:
            WorkerError: It wrote no valid part: it crashed, was killed, or ran out of time.
        """
        try:
            part = worker_part.read(self._part_file)
            if part.quality != UNFINISHED:
                return part
            reason = f"scoring {self._stopped or _death(self._process.poll())}; the timing is kept"
            return dataclasses.replace(part, quality=dataclasses.replace(UNFINISHED, reason=reason))
        except FileNotFoundError:
            pass
        except WorkerError as error:
            raise WorkerError(f"{self._subject} {error}") from error
        if self._stopped:
            raise WorkerError(f"{self._subject} {self._stopped}")
        raise WorkerError(f"{self._subject} {_death(self._process.poll())}{self._last_words()}")

    def _late(self) -> None:
        advice = "" if self._is_further else " (--timeout allows more)"
        self._stop(f"took longer than {self._timeout:.0f} s and was stopped{advice}")

    def _flooded(self) -> None:
        self._stop("sent too many progress events and was stopped")

    def _stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        descendants.end(self.pid, self._mark)

    def _wait_for_the_end(self) -> None:
        """Wait until the worker ends, end the processes that it left running, and read the rest of its output."""
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
    """Create a new file; replace anything that a worker left there, such as a link or a pipe that blocks on opening."""
    path.unlink(missing_ok=True)
    return path.open("xb", buffering=0)


def environment(variant: Variant, verb: str) -> dict[str, str]:
    """Return the worker's environment: the user's, without what could disturb or leak."""
    cores = os.cpu_count() or 1
    variables = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    package = str(Path(__file__).resolve().parents[2])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [package, variables.get("PYTHONPATH")]))
    variables["PYTHONUNBUFFERED"] = "1"
    variables[PARENT] = str(os.getpid())
    variables["TOKENIZERS_PARALLELISM"] = "false"
    variables.setdefault("YOLO_AUTOINSTALL", "false")  # ultralytics reads it on import, and would run pip
    variables[WORD] = trust_word()
    variables.update(usage_reports.VARIABLES)
    if verb != "prepare":
        variables["HF_HUB_OFFLINE"] = "1"  # everything needed was saved
    if variant.threads is not None:
        variables["OMP_NUM_THREADS"] = variables["MKL_NUM_THREADS"] = str(variant.threads)
    elif (cgroup.core_limit() or cores) < cores:  # libraries see the cores, but not the limit of their time
        variables.setdefault("OMP_NUM_THREADS", str(surroundings.most_threads()))
    return variables


def _apart() -> dict[str, Any]:
    """Return the arguments of `Popen` that keep Ctrl-C in the terminal from the worker."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _death(code: int | None) -> str:
    if code is None:
        return "can't be ended: it hangs in the kernel"
    if code >= _FIRST_CRASH:
        name = _CRASHES.get(code, "")
        return f"was ended by Windows with code 0x{code:08X}{f' ({name})' if name else ''}"
    if code >= 0:
        return f"ended with exit code {code} and wrote no result"
    advice = " (out of memory? Then the kernel kills processes)" if -code == signal.SIGKILL else ""
    return f"was killed by {_signal_name(-code)}{advice}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have none
        return f"signal {number}"
