"""`isolate`: each verb of the worker runs in a process of its own, and what happens there becomes one `Result`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_compress.folder_trees import remove
from mlflow_compress.measuring import bounded_log, launches
from mlflow_compress.measuring.combine import combine
from mlflow_compress.measuring.interleave import Side, alone, alternate
from mlflow_compress.measuring.one_process import Listener, work
from mlflow_compress.measuring.prepared_originals import PreparedOriginals, fits_in_memory, original_of
from mlflow_compress.measuring.quality import PREDICTIONS, STATISTICS
from mlflow_compress.measuring.worker import MODEL_FOLDER
from mlflow_compress.records import Part, Result, Variant

MOST_TABLE_BYTES = 512 * 2**20  # millions of predictions
_ORIGINALS = "originals"


def run(
    variant: Variant,
    folder: Path,
    listener: Listener,
    ready: Callable[[], object] = lambda: None,
    originals: PreparedOriginals | None = None,
) -> Result:
    """Prepare and measure a variant, each in a process of its own.

    Args:
        variant: what to measure.
        folder: an empty folder for the model, the records and the logs.
        listener: told of each event of progress: `stage`, and as far as known `done`, `total`, `seconds_left`.
        ready: called between preparing and measuring: waits for whatever else is going on to end, since nothing may
            share the machine with a measurement.
        originals: those that this command has prepared, for the variants that take turns with them.

    Returns:
        One result, whatever happens.
    """
    started, began = time.time(), time.monotonic()
    variant = dataclasses.replace(variant, interleave=variant.interleave and not variant.is_original)
    prepared = work("prepare", variant, folder, listener)
    parts: dict[str, Part] = {}
    if prepared.outcome.status == "ok":
        base, obstacle = None, ""
        if variant.interleave:
            base, obstacle = _base(variant, folder, originals or PreparedOriginals(folder / _ORIGINALS), listener)
        elif originals is not None and variant.is_original:
            originals.keep(variant, folder)
        ready()
        score = True  # on the GPU if it runs there, which is faster, and once
        for device in reversed(variant.devices):
            own = Side(variant, folder)
            if base is not None:
                parts[device] = alternate(own, base, device, score, listener)
            elif obstacle:
                parts[device] = alone(own, device, score, listener, obstacle)
            else:
                parts[device] = launches.measure(variant, folder, device, score, listener)
            score = score and parts[device].outcome.status != "ok"
    else:
        ready()
    measured = {device: parts[device] for device in variant.devices if device in parts}
    result = combine(variant, {"prepare": prepared, **measured}, started)
    return dataclasses.replace(result, ended_s=started + time.monotonic() - began)  # whatever is done to the clock


def check(variant: Variant, folder: Path, listener: Listener) -> Part:
    """Do what measuring an original takes, but for the timing, and score two samples: in seconds.

    Args:
        variant: the original of a model.
        folder: as `run` takes it.
        listener: as `run` takes it.

    Returns:
        What the model takes and gives, as facts; or why it can't be measured.
    """
    prepared = work("prepare", variant, folder, listener)
    return work("try", variant, folder, listener, "cpu") if prepared.outcome.status == "ok" else prepared


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


def _base(variant: Variant, folder: Path, originals: PreparedOriginals, listener: Listener) -> tuple[Side | None, str]:
    """Return the original that a variant takes turns with, prepared; or None, and why it takes none."""
    original = original_of(variant)
    place = originals.place(original)
    if not (place / MODEL_FOLDER).is_dir():
        outcome = work("prepare", original, place, listener).outcome
        if outcome.status != "ok":
            remove(place)
            return None, f"the original: {outcome.reason}"
    if "cpu" in variant.devices and not fits_in_memory(folder / MODEL_FOLDER, place / MODEL_FOLDER):
        return None, "both together may not fit into memory"
    return Side(original, place), ""
