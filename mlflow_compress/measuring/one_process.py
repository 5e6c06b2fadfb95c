"""`work`: runs one verb of the worker to its end, in a process of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring.worker import VARIANT
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters.timeline import Timeline
from mlflow_compress.records import Outcome, Part, Variant, metric_group, write_json

Listener = Callable[[Mapping[str, Any]], None]


def work(verb: str, variant: Variant, folder: Path, listener: Listener, device: str = "", how: str = "") -> Part:
    """Run a verb.

    Args:
        verb: `prepare`, `measure`, `time` or `try`.
        variant: what it works on.
        folder: its folder, made where there is none.
        listener: told of each event of progress.
        device: `cpu` or `cuda`, to measure or try on.
        how: as `Worker` takes it.

    Returns:
        What the worker left; failed, with the reason, where it left nothing.
    """
    try:
        folder.mkdir(exist_ok=True)
        write_json(folder / VARIANT, variant)
        with Worker(verb, variant, folder, device, how) as worker, Timeline(worker.pid) as timeline:
            for event in worker.events():
                listener(event)
            part = worker.part()
    except (WorkerError, OSError) as error:  # OSError: the disk is full
        return Part(Outcome("failed", str(error)))
    if verb != "measure":
        return part
    return dataclasses.replace(part, samples={**part.samples, **timeline.samples(metric_group(device))})
