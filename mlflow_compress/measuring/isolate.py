"""`isolate`: each verb of the worker runs in a process of its own, and what happens there becomes one `Result`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring import bounded_log
from mlflow_compress.measuring.combine import combine
from mlflow_compress.measuring.interleave import Listener, alternate
from mlflow_compress.measuring.quality import PREDICTIONS, STATISTICS
from mlflow_compress.measuring.worker import MODEL_FOLDER, VARIANT
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters.timeline import Timeline
from mlflow_compress.records import Outcome, Part, Result, Step, Variant, metric_group, write_json
from mlflow_compress.words import ORIGINAL

MOST_TABLE_BYTES = 512 * 2**20  # millions of predictions
_ORIGINAL_FOLDER = "original"


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
    started, began = time.time(), time.monotonic()
    original = _original(variant) if variant.interleave else None
    variant = dataclasses.replace(variant, interleave=original is not None)
    prepared = _work("prepare", variant, folder, listener)
    if original is not None:  # if preparing it fails, so will measuring, and say why
        _work("prepare", original, folder / _ORIGINAL_FOLDER, listener)
    ready()
    found: dict[str, Part] = {}
    if prepared.outcome.status == "ok":
        score = True  # on the GPU if it runs there, which is faster, and once
        for device in reversed(variant.devices):
            if original is None:
                part = _work("measure", variant, folder, listener, device, score)
            else:
                part = alternate(variant, folder, original, folder / _ORIGINAL_FOLDER, device, score, listener)
            found[device] = part
            score = score and part.outcome.status != "ok"
    parts = {device: found[device] for device in variant.devices if device in found}
    result = combine(variant, {"prepare": prepared, **parts}, started)
    return dataclasses.replace(result, ended_s=started + time.monotonic() - began)  # whatever is done to the clock


def model_folder(folder: Path) -> Path:
    """Say where in a variant's folder the saved model is."""
    return folder / MODEL_FOLDER


def tables(folder: Path) -> dict[str, bytes]:
    """Return what scoring left, by file name: predictions, and statistics of the samples.

    What is no file is nothing that scoring left, and what is too large stays out, see `too_large`.
    """
    return {path.name: path.read_bytes() for path in _tables(folder) if path.stat().st_size <= MOST_TABLE_BYTES}


def too_large(folder: Path) -> str:
    """Say which tables are larger than those that are logged; empty where none is."""
    large = {path.name: path.stat().st_size for path in _tables(folder) if path.stat().st_size > MOST_TABLE_BYTES}
    told = (f"{name} takes {size / 2**20:,.0f} MiB" for name, size in large.items())
    return f"{', '.join(told)}: at most {MOST_TABLE_BYTES / 2**20:,.0f} MiB are logged" if large else ""


def logs(folder: Path) -> dict[str, bytes]:
    """Return what the workers wrote to standard error, by file name; of much of it the two ends."""
    found = {path.name: _log(path) for path in sorted(folder.glob("*.log"))}
    return {name: text for name, text in found.items() if text}


def _tables(folder: Path) -> list[Path]:
    paths = [folder / name for name in (PREDICTIONS, STATISTICS)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _log(path: Path) -> bytes:
    try:
        return bounded_log.read(path)
    except OSError as error:
        return f"The log can't be read: {error}\n".encode()


def _original(variant: Variant) -> Variant | None:
    """Return the original that a variant is measured in turns with; None for the original itself."""
    original = dataclasses.replace(variant, method=ORIGINAL, chain=(Step(ORIGINAL),), data=None)
    return None if variant.chain == original.chain else original


def _work(verb: str, variant: Variant, folder: Path, listener: Listener, device: str = "", score: bool = False) -> Part:
    """Run one verb to its end."""
    try:
        folder.mkdir(exist_ok=True)
        write_json(folder / VARIANT, variant)
        with Worker(verb, variant, folder, device, score) as worker, Timeline(worker.pid) as timeline:
            for event in worker.events():
                listener(event)
            part = worker.part()
    except (WorkerError, OSError) as error:  # OSError: the disk is full
        return Part(Outcome("failed", str(error)))
    if verb == "prepare":
        return part
    group = metric_group(device)
    return dataclasses.replace(part, samples={**part.samples, **timeline.samples(group)})
