"""The part of a cluster sweep that runs on each machine: describe it, measure there, and send the results back.

It runs in a process that Ray started and reuses, which is never the measured process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import StoreError
from mlflow_compress.folder_trees import files_below
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.measure_one import Run, measure_one
from mlflow_compress.measuring.one_process import Listener
from mlflow_compress.planning import requirements
from mlflow_compress.records import Result, Variant, write_json
from mlflow_compress.sweeping import file_bundle
from mlflow_compress.tracking import connection
from mlflow_compress.tracking.spool import Spool

CHUNK_BYTES = 16 * 2**20
RESULT = "result.json"
Item = tuple[str, Any]  # ("progress", event) or ("file", (name, bytes to append))

_LOOK_SECONDS = 0.5  # delay until a cancelled measurement notices it
_TELL_SECONDS = 2.0  # between two events of one stage
_STOP_SECONDS = 10.0
_WORKER = "mlflow_compress.measuring.worker"
_AT_HOME = ("outputs.safetensors", "variant.json")  # files of a measurement that are not sent
_OF_THE_MACHINE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # a scheduler sets these for its own tasks


class _StoppedError(Exception):
    """The result is not wanted any more."""


def describe(tracking_uri: str, parcels: Iterable[Mapping[str, Any]], has_gpus: bool) -> dict[str, Any]:
    """Describe this machine.

    Args:
        tracking_uri: Address of the tracking server.
        parcels: Files that the variants need, see `file_bundle.Parcel`, as JSON.
        has_gpus: Whether its GPUs may be used.

    Returns:
        `machine`: see `requirements.here`; `niceness`: how much lower the priority of measured processes is;
        `unreachable`: why the tracking server can't be reached from here, or empty; `parcels`: the places of parcels
        that are already here, by digest.
    """
    niceness = _as_the_machine_is()
    with _visible(has_gpus):
        machine = requirements.here()
    unreachable = ""
    try:
        connection.probe(tracking_uri)
    except StoreError as error:
        unreachable = str(error)
    needed_parcels = [file_bundle.Parcel.from_json(parcel) for parcel in parcels]
    return {
        "machine": machine,
        "niceness": niceness,
        "unreachable": unreachable,
        "parcels": {parcel.digest: location for parcel in needed_parcels if (location := file_bundle.find(parcel))},
    }


def measure(
    variant: Variant,
    needs: file_bundle.Parcel | None,
    where: str,
    chunks: Iterable[bytes],
    with_model: bool,
    has_gpus: bool = True,
    run: Run = isolate.run,
) -> Iterator[Item]:
    """Measure a variant on this machine, and yield the progress and the files.

    Closing the generator, or an interrupt, ends the measurement.

    Args:
        variant: Variant with the paths of the machine that sent it.
        needs: Files that it needs from that machine.
        where: Their place on this machine; empty: not here yet.
        chunks: Archive of the parcel, read if it is not here yet.
        with_model: Whether to send the model.
        has_gpus: Whether the GPUs may be used.
        run: Measures the variant.

    Yields:
        Progress events; then the files, `result.json` last.

    Raises:
        OSError: The disk is full, or the parcel can't be unpacked.
    """
    _as_the_machine_is()
    if needs is not None:
        variant = file_bundle.moved(variant, needs, where or file_bundle.unpack(needs, chunks))
    spool = Spool()
    spool.clear()
    entry = spool.begin()
    with _visible(has_gpus):
        measuring = _Measuring(variant, entry.folder, run)
        measuring.start()
        try:
            yield from (("progress", event) for event in measuring.events())
            write_json(entry.folder / RESULT, measuring.result())
            for path in _worth_sending(entry.folder, with_model):
                name = path.relative_to(entry.folder).as_posix()
                yield from (("file", (name, chunk)) for chunk in _chunks(path))
        finally:
            measuring.stop()
            entry.remove()


class _Measuring(threading.Thread):
    """Measures in a thread, so that the generator can yield progress, and be stopped."""

    def __init__(self, variant: Variant, folder: Path, run: Run) -> None:
        super().__init__(daemon=True)
        self._variant, self._folder, self._run = variant, folder, run
        self._events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._is_unwanted = False
        self._waits = True
        self._result: Result | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = measure_one(self._variant, self._folder, self._listen, self._wait, run=self._measure)
        except BaseException as error:
            self._error = error
        finally:
            self._events.put(None)

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Yield warnings, and progress events at intervals, until the measurement ends."""
        stage, sent_s = None, 0.0
        while True:
            try:
                event = self._events.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                return
            is_new = event.get("stage") != stage or time.monotonic() - sent_s >= _TELL_SECONDS
            if "warning" in event or ("stage" in event and is_new):
                stage, sent_s = event.get("stage"), time.monotonic()
                yield event

    def result(self) -> Result:
        """Return the result, or raise the error of the measurement."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End the measurement and its processes, if it still runs."""
        self._is_unwanted = True
        end = time.monotonic() + _STOP_SECONDS
        while self.is_alive() and not self._waits and time.monotonic() < end:
            _kill_workers()
            self.join(0.1)

    def _wait(self, reason: str) -> None:
        self._events.put({"stage": reason})

    def _measure(self, variant: Variant, folder: Path, listener: Listener) -> Result:
        """Measure, now that no other measurement runs on this machine."""
        self._waits = False
        listener({})
        return self._run(variant, folder, listener)

    def _listen(self, event: Mapping[str, Any]) -> None:
        if self._is_unwanted:
            raise _StoppedError
        self._events.put(event)


def _kill_workers() -> None:
    """Kill the measured processes that this process started, and their children."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if _WORKER not in child.cmdline():
                continue
            if hasattr(os, "killpg"):
                os.killpg(child.pid, signal.SIGKILL)
            else:  # Windows has no process groups
                for process in (*child.children(recursive=True), child):
                    process.kill()


def _worth_sending(folder: Path, with_model: bool) -> list[Path]:
    """Return the files to send, the result last: it marks the end."""
    model = isolate.model_folder(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (RESULT, *_AT_HOME))
    if with_model and model.is_dir():
        files += sorted(files_below(model))
    return [*files, folder / RESULT]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        chunk = file.read(CHUNK_BYTES)
        yield chunk  # also for an empty file
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _as_the_machine_is() -> int:
    """Undo changes by the scheduler that would affect the measurement: the number of threads, and a low priority.

    Returns:
        The niceness that could not be undone.
    """
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process()
        parent = process.parent()
        if parent is None or parent.name() != "raylet":
            return 0
        variables = parent.environ()
        for name in _OF_THE_MACHINE:
            os.environ.pop(name, None)
            if name in variables:
                os.environ[name] = variables[name]
        with contextlib.suppress(psutil.Error, OSError):  # the system may refuse
            process.nice(parent.nice())
        return int(process.nice() - parent.nice())
    return 0


@contextlib.contextmanager
def _visible(has_gpus: bool) -> Iterator[None]:
    """Hide the machine's GPUs if the scheduler does not assign them, and show them if it does."""
    old_value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not has_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif old_value == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if old_value is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = old_value
