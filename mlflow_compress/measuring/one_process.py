"""`work`: run one verb of the worker to its end, in its own process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring.worker import VARIANT
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters.memory import ELSEWHERE
from mlflow_compress.meters.timeline import Timeline
from mlflow_compress.records import Outcome, Part, Variant, metric_group, write_json

Listener = Callable[[Mapping[str, Any]], None]


def work(verb: str, variant: Variant, folder: Path, listener: Listener, device: str = "", how: str = "") -> Part:
    """Run a verb.

    Args:
        verb: `prepare`, `measure`, `time` or `try`.
        variant: The variant.
        folder: Its folder; created if missing.
        listener: Receives each progress event.
        device: Device to measure or try on, `cpu` or an accelerator.
        how: See `Worker`.

    Returns:
        The part that the worker wrote; a failed one, with the reason, if it wrote none.
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
    if verb != "measure" or part.facts.get("memory_source") == ELSEWHERE:
        return part
    return dataclasses.replace(part, samples={**part.samples, **timeline.samples(metric_group(device))})
