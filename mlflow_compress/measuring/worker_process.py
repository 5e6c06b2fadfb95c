"""The process wall: one verb of the worker, in a fresh interpreter of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring.worker import PARENT, SCORE, part_file
from mlflow_compress.records import Part, Variant, read_json

_DROPPED = ("MLFLOW_", "DATABRICKS_")  # the worker has no business with the tracking server, nor with its secrets


class Worker:
    """A running worker. Leaving the `with` block ends it, and whatever it started.

    Args:
        verb: `prepare` or `measure`.
        variant: what it works on.
        folder: the folder with `variant.json`; the part and the log are left there.
        device: `cpu` or `cuda`, to measure on.
        score: whether quality is scored too.
    """

    def __init__(self, verb: str, variant: Variant, folder: Path, device: str = "", score: bool = False) -> None:
        self._verb = verb
        self._timeout = variant.budget.timeout_seconds
        self._found = folder / part_file(verb, device)
        self._found.unlink(missing_ok=True)
        self._log = folder / f"{self._found.stem}.log"
        self._late = threading.Event()
        words = [verb, str(folder), *([device] if device else []), *([SCORE] if score else [])]
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow_compress.measuring.worker", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=environment(variant, verb),
                start_new_session=True,
            )
        self._timer = threading.Timer(self._timeout, self._stop)
        self._timer.start()

    def __enter__(self) -> Worker:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._timer.cancel()
        _kill(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._process.pid

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Return its events of progress until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield _event(line)
        self._process.wait()

    def tell(self, word: str) -> None:
        """Write a line to it; one that is gone does not mind."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()

    def part(self) -> Part:
        """Read what it left, after its last event.

        Raises:
            WorkerError: it left nothing: it crashed, was killed, or ran out of time.
        """
        if self._found.exists():
            return Part.from_json(read_json(self._found))
        if self._late.is_set():
            took = f"took longer than {self._timeout:.0f} s and was stopped (--timeout allows more)"
            raise WorkerError(f"{self._verb} {took}")
        raise WorkerError(f"{self._verb} {_death(self._process.returncode)}{_tail(self._log)}")

    def _stop(self) -> None:
        self._late.set()
        _kill(self._process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the worker and whatever it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def environment(variant: Variant, verb: str) -> dict[str, str]:
    """Return the worker's environment: the user's, less what could disturb or leak."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    package = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH")]))
    kept["PYTHONUNBUFFERED"] = "1"
    kept[PARENT] = str(os.getpid())
    kept["TOKENIZERS_PARALLELISM"] = "false"
    if verb == "measure":
        kept["HF_HUB_OFFLINE"] = "1"  # all that is needed was saved
    if variant.threads is not None:
        kept["OMP_NUM_THREADS"] = kept["MKL_NUM_THREADS"] = str(variant.threads)
    return kept


def _event(line: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:  # the worker was killed in the middle of a line
        return {}
    return event if isinstance(event, dict) else {}


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code} and left no result"
    name = signal.Signals(-code).name
    advice = " (out of memory? The kernel kills so)" if name == "SIGKILL" else ""
    return f"was killed by {name}{advice}"


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f". Its last line: {lines[-1][:300]}" if lines else ""
