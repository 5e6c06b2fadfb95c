"""The process wall: each verb of the worker runs in a fresh process, and what happens there becomes one `Result`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.meters import environment
from mlflow_compress.records import Caution, Outcome, Part, Result, Status, Variant, finite, read_json, write_json
from mlflow_compress.worker import MODEL_FOLDER, VARIANT, part_file

Listener = Callable[[Mapping[str, Any]], None]

_DROPPED = ("MLFLOW_", "DATABRICKS_")  # the worker has no business with the tracking server, nor with its secrets


def run(variant: Variant, folder: Path, listener: Listener, ready: Callable[[], object] = lambda: None) -> Result:
    """Prepare and measure a variant, each in a process of its own.

    Args:
        variant: what to measure.
        folder: an empty folder for the model, the records and the logs.
        listener: told of each event of progress: `stage`, and as far as known `done`, `total`, `seconds_left`.
        ready: called between preparing and measuring: waits for whatever else is going on to end, since nothing may
            share the machine with a measurement.

    Returns:
        One result, whatever happens.
    """
    started = time.time()
    write_json(folder / VARIANT, variant)
    parts = {"prepare": _work("prepare", variant, folder, listener)}
    ready()
    if parts["prepare"].outcome.status == "ok":
        for device in variant.devices:
            parts[device] = _work("measure", variant, folder, listener, device)
    return combine(variant, parts, started)


def model_folder(folder: Path) -> Path:
    """Say where in a variant's folder the saved model is."""
    return folder / MODEL_FOLDER


def logs(folder: Path) -> dict[str, bytes]:
    """Give what the workers wrote to standard error, by file name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.log")) if path.stat().st_size}


def combine(variant: Variant, parts: Mapping[str, Part], started: float) -> Result:
    """Put the parts of all processes together.

    The variant failed when anything that was asked for failed, and was skipped when all of it was. What was measured
    stays, whatever else failed.
    """
    outcomes: dict[str, Outcome] = {}
    for name, part in parts.items():
        if name != "prepare":
            outcomes["gpu" if name == "cuda" else name] = part.outcome
        if part.quality is not None:
            outcomes["quality"] = part.quality
    judged = {"": parts["prepare"].outcome, **outcomes} if parts["prepare"].outcome.status != "ok" else outcomes
    bad = {name: outcome for name, outcome in judged.items() if outcome.status != "ok"}
    status: Status = "ok"
    if any(outcome.status == "failed" for outcome in bad.values()):
        status = "failed"
    elif len(bad) == len(judged):
        status = "skipped"
    reason = "; ".join(f"{name}: {outcome.reason}" if name else outcome.reason for name, outcome in bad.items())
    cautions: list[Caution] = []
    for part in parts.values():
        cautions += [caution for caution in part.cautions if caution not in cautions]
    return Result(
        variant=variant,
        status=status,
        reason=reason,
        measurements=finite(_merged(part.measurements for part in parts.values())),
        samples=_merged(part.samples for part in parts.values()),
        cautions=tuple(cautions),
        environment=environment.machine() | _merged(part.environment for part in parts.values()),
        outcomes=outcomes,
        facts=_merged(part.facts for part in parts.values()),
        started_s=started,
        ended_s=time.time(),
    )


def _merged(mappings: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for mapping in mappings:
        merged |= mapping
    return merged


def _work(verb: str, variant: Variant, folder: Path, listener: Listener, device: str = "") -> Part:
    try:
        return _spawn(verb, variant, folder, listener, device)
    except WorkerError as error:
        return Part(Outcome("failed", str(error)))


def _spawn(verb: str, variant: Variant, folder: Path, listener: Listener, device: str) -> Part:
    """Run one verb in a fresh interpreter, and read the part that it leaves.

    Raises:
        WorkerError: it left none: it crashed, was killed, or ran out of time.
    """
    found = folder / part_file(verb, device)
    found.unlink(missing_ok=True)
    log = folder / f"{found.stem}.log"
    command = [sys.executable, "-m", "mlflow_compress.worker", verb, str(folder), *([device] if device else [])]
    timeout = variant.budget.timeout_seconds
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=_environment(variant, verb),
            start_new_session=True,
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                listener(_event(line))
            process.wait()
        finally:
            timer.cancel()
            _kill(process)
    if found.exists():
        return Part.from_json(read_json(found))
    if late.is_set():
        raise WorkerError(f"{verb} took longer than {timeout:.0f} s and was stopped (--timeout allows more)")
    raise WorkerError(f"{verb} {_death(process.returncode)}{_tail(log)}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the worker and whatever it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _environment(variant: Variant, verb: str) -> dict[str, str]:
    """Give the worker's environment: the user's, less what could disturb or leak."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    package = str(Path(__file__).resolve().parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH")]))
    kept["PYTHONUNBUFFERED"] = "1"
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
