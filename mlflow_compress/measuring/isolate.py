"""`isolate`: run each verb of the worker in its own process, and turn the outcome into one `Result`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_compress.folder_trees import remove
from mlflow_compress.measuring import bounded_log, launches
from mlflow_compress.measuring.combine import combine
from mlflow_compress.measuring.interleave import Side, alone, alternate
from mlflow_compress.measuring.layer_table import LAYERS
from mlflow_compress.measuring.one_process import Listener, work
from mlflow_compress.measuring.prepared_originals import PreparedOriginals, fits_in_memory, original_of
from mlflow_compress.measuring.quality import CLASSES, CONFUSION, FLIPS, PREDICTIONS, STATISTICS
from mlflow_compress.measuring.worker import MODEL_FOLDER
from mlflow_compress.meters.load import TIME_LINE
from mlflow_compress.records import Part, Result, Variant

MOST_TABLE_BYTES = 512 * 2**20  # millions of predictions
TABLES = (PREDICTIONS, STATISTICS, CONFUSION, CLASSES, FLIPS, LAYERS, TIME_LINE)
_ORIGINALS = "originals"


def run(
    variant: Variant,
    folder: Path,
    listener: Listener,
    ready: Callable[[], object] = lambda: None,
    originals: PreparedOriginals | None = None,
) -> Result:
    """Prepare and measure a variant, each in its own process.

    Args:
        variant: The variant to measure.
        folder: An empty folder for the model, the records and the logs.
        listener: Receives each progress event: `stage`, and if known `done`, `total`, `seconds_left`.
        ready: Called between preparing and measuring. It waits until other work ends, because nothing may share the
            machine with a measurement.
        originals: Originals that this command has prepared, for variants measured in turns with them.

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
            side = Side(variant, folder)
            if base is not None:
                parts[device] = alternate(side, base, device, score, listener)
            elif obstacle:
                parts[device] = alone(side, device, score, listener, obstacle)
            else:
                parts[device] = launches.measure(variant, folder, device, score, listener)
            score = score and parts[device].outcome.status != "ok"
    else:
        ready()
    measured = {device: parts[device] for device in variant.devices if device in parts}
    result = combine(variant, {"prepare": prepared, **measured}, started)
    return dataclasses.replace(result, ended_s=started + time.monotonic() - began)  # unaffected by clock changes


def check(variant: Variant, folder: Path, listener: Listener) -> Part:
    """Do all steps of measuring an original except the timing, and score two samples. It takes seconds.

    Args:
        variant: The original of a model.
        folder: See `run`.
        listener: See `run`.

    Returns:
        The model's inputs and outputs, as facts; or the reason why it can't be measured.
    """
    prepared = work("prepare", variant, folder, listener)
    return work("try", variant, folder, listener, "cpu") if prepared.outcome.status == "ok" else prepared


def model_folder(folder: Path) -> Path:
    """Return the folder of the saved model in a variant's folder."""
    return folder / MODEL_FOLDER


def tables(folder: Path) -> dict[str, bytes]:
    """Return the tables of a variant by file name: see `TABLES`.

    Links and folders are ignored. Tables that are too large are left out, see `too_large`.
    """
    return {path.name: path.read_bytes() for path in _tables(folder) if path.stat().st_size <= MOST_TABLE_BYTES}


def too_large(folder: Path) -> str:
    """Return a message about tables that are too large to be logged; empty if there are none."""
    large = {path.name: path.stat().st_size for path in _tables(folder) if path.stat().st_size > MOST_TABLE_BYTES}
    sizes = (f"{name} has {size / 2**20:,.0f} MiB" for name, size in large.items())
    return f"{', '.join(sizes)}: at most {MOST_TABLE_BYTES / 2**20:,.0f} MiB are logged" if large else ""


def logs(folder: Path) -> dict[str, bytes]:
    """Return the standard error of the workers, by file name; for large logs only the two ends."""
    texts = {path.name: _log(path) for path in sorted(folder.glob("*.log"))}
    return {name: text for name, text in texts.items() if text}


def _tables(folder: Path) -> list[Path]:
    paths = [folder / name for name in TABLES]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _log(path: Path) -> bytes:
    try:
        return bounded_log.read(path)
    except OSError as error:
        return f"The log can't be read: {error}\n".encode()


def _base(variant: Variant, folder: Path, originals: PreparedOriginals, listener: Listener) -> tuple[Side | None, str]:
    """Return the prepared original that a variant takes turns with; or None, and the reason."""
    original = original_of(variant)
    original_folder = originals.place(original)
    if not (original_folder / MODEL_FOLDER).is_dir():
        outcome = work("prepare", original, original_folder, listener).outcome
        if outcome.status != "ok":
            remove(original_folder)
            return None, f"the original: {outcome.reason}"
    if "cpu" in variant.devices and not fits_in_memory(folder / MODEL_FOLDER, original_folder / MODEL_FOLDER):
        return None, "both models together may not fit into memory"
    return Side(original, original_folder), ""
