"""`isolate`: each verb of the worker runs in a process of its own, and what happens there becomes one `Result`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring.interleave import Listener, alternate
from mlflow_compress.measuring.quality import PREDICTIONS, STATISTICS
from mlflow_compress.measuring.worker import MODEL_FOLDER, VARIANT
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters import environment
from mlflow_compress.meters.timeline import Timeline
from mlflow_compress.records import Caution, Outcome, Part, Result, Status, Step, Variant, finite, write_json

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
    if original is not None:
        (folder / _ORIGINAL_FOLDER).mkdir()
        _work("prepare", original, folder / _ORIGINAL_FOLDER, listener)  # if it fails, so will measuring, and say why
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


def skipped(variant: Variant, reason: str) -> Result:
    """Give the result of a variant that no machine at hand may measure: nothing was loaded.

    Args:
        variant: it.
        reason: why, in a sentence.
    """
    return combine(variant, {"prepare": Part(Outcome("skipped", reason))}, time.time())


def model_folder(folder: Path) -> Path:
    """Say where in a variant's folder the saved model is."""
    return folder / MODEL_FOLDER


def tables(folder: Path) -> dict[str, bytes]:
    """Give what scoring left, by file name: predictions, and statistics of the samples."""
    return {name: (folder / name).read_bytes() for name in (PREDICTIONS, STATISTICS) if (folder / name).is_file()}


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


def _original(variant: Variant) -> Variant | None:
    """Give the original that a variant is measured in turns with; None for the original itself."""
    original = dataclasses.replace(variant, method="original", chain=(Step("original"),), data=None)
    return None if variant.chain == original.chain else original


def _work(verb: str, variant: Variant, folder: Path, listener: Listener, device: str = "", score: bool = False) -> Part:
    """Run one verb to its end."""
    try:
        write_json(folder / VARIANT, variant)
        with Worker(verb, variant, folder, device, score) as worker, Timeline(worker.pid) as timeline:
            for event in worker.events():
                listener(event)
            part = worker.part()
    except (WorkerError, OSError) as error:  # OSError: the disk is full
        return Part(Outcome("failed", str(error)))
    if verb == "prepare":
        return part
    group = "gpu" if device == "cuda" else "cpu"
    return dataclasses.replace(part, samples={**part.samples, **timeline.samples(group)})
