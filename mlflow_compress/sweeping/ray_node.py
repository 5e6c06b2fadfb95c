"""What a sweep over many machines does on each of them: describes it, measures there, and sends home what came of it.

It runs in a process that others started, one that is used again and that is never the measured one.
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

_LOOK_SECONDS = 0.5  # how soon it is noticed that nobody wants the result any more
_TELL_SECONDS = 2.0  # between two events of one stage
_STOP_SECONDS = 10.0
_WORKER = "mlflow_compress.measuring.worker"
_AT_HOME = ("outputs.safetensors", "variant.json")  # of what a measurement leaves, not worth sending
_OF_THE_MACHINE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # a scheduler sets these for its own tasks


class _StoppedError(Exception):
    """Nobody wants the result any more."""


def describe(tracking_uri: str, parcels: Iterable[Mapping[str, Any]], has_gpus: bool) -> dict[str, Any]:
    """Describe this machine.

    Args:
        tracking_uri: the tracking server's address.
        parcels: what is to be measured here needs, see `parcel.Parcel`, as JSON.
        has_gpus: whether its GPUs may be used.

    Returns:
        `machine`, as `requirements.here` gives it; `niceness`: by how much what is measured comes after other programs;
        `unreachable`: why the tracking server is not reached from here, or empty; `parcels`: the place of each parcel
        that is here already, by digest.
    """
    niceness = _as_the_machine_is()
    with _visible(has_gpus):
        found = requirements.here()
    unreachable = ""
    try:
        connection.probe(tracking_uri)
    except StoreError as error:
        unreachable = str(error)
    known = [file_bundle.Parcel.from_json(each) for each in parcels]
    return {
        "machine": found,
        "niceness": niceness,
        "unreachable": unreachable,
        "parcels": {each.digest: where for each in known if (where := file_bundle.find(each))},
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
    """Measure a variant on this machine, and give what came of it piece by piece.

    Closing the generator, or an interrupt, ends what was started.

    Args:
        variant: with the paths of the machine that it comes from.
        needs: the files that it needs of that machine.
        where: where they are here; empty: nowhere yet.
        chunks: the parcel's archive, read if it is nowhere yet.
        with_model: whether to send the model.
        has_gpus: whether the GPUs may be used.
        run: measures.

    Yields:
        Events of progress; then the files, `result.json` last.

    Raises:
        OSError: the disk is full, or the parcel can't be unpacked.
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
    """Measures in a thread, so that the generator can tell of progress, and be stopped."""

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
        """Return warnings, and the newest event of progress now and then, until it is over."""
        stage, told = None, 0.0
        while True:
            try:
                event = self._events.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                return
            is_new = event.get("stage") != stage or time.monotonic() - told >= _TELL_SECONDS
            if "warning" in event or ("stage" in event and is_new):
                stage, told = event.get("stage"), time.monotonic()
                yield event

    def result(self) -> Result:
        """Return what came of it."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End it and the processes that it started, if it is not over."""
        self._is_unwanted = True
        end = time.monotonic() + _STOP_SECONDS
        while self.is_alive() and not self._waits and time.monotonic() < end:
            _kill_workers()
            self.join(0.1)

    def _wait(self, reason: str) -> None:
        self._events.put({"stage": reason})

    def _measure(self, variant: Variant, folder: Path, listener: Listener) -> Result:
        """Measure, now that nobody else does on this machine."""
        self._waits = False
        listener({})
        return self._run(variant, folder, listener)

    def _listen(self, event: Mapping[str, Any]) -> None:
        if self._is_unwanted:
            raise _StoppedError
        self._events.put(event)


def _kill_workers() -> None:
    """Kill the measured processes that this process started, with all that these started."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if _WORKER in child.cmdline():
                os.killpg(child.pid, signal.SIGKILL)


def _worth_sending(folder: Path, with_model: bool) -> list[Path]:
    """Return the files to be sent home, the result last: it says that all is there."""
    model = isolate.model_folder(folder)
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (RESULT, *_AT_HOME))
    if with_model and model.is_dir():
        found += sorted(files_below(model))
    return [*found, folder / RESULT]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        chunk = file.read(CHUNK_BYTES)
        yield chunk  # an empty file is a file, too
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _as_the_machine_is() -> int:
    """Undo what a scheduler does to its tasks that would change what is measured: threads, and a low priority.

    Returns:
        The niceness that is left of the scheduler's.
    """
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        own = psutil.Process()
        parent = own.parent()
        if parent is None or parent.name() != "raylet":
            return 0
        given = parent.environ()
        for name in _OF_THE_MACHINE:
            os.environ.pop(name, None)
            if name in given:
                os.environ[name] = given[name]
        with contextlib.suppress(psutil.Error, OSError):  # the system may refuse
            own.nice(parent.nice())
        return int(own.nice() - parent.nice())
    return 0


@contextlib.contextmanager
def _visible(has_gpus: bool) -> Iterator[None]:
    """Hide the machine's GPUs where the scheduler does not hand them out, and show them where it does."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not has_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif before == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
