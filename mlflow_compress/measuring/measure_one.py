"""`measure_one`: turn one Variant into one Result on this machine, for local sweeps, cluster nodes and MLflow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mlflow_compress.measuring import isolate, machine_lock
from mlflow_compress.measuring.one_process import Listener
from mlflow_compress.records import Result, Variant

Run = Callable[[Variant, Path, Listener], Result]


def measure_one(
    variant: Variant,
    folder: Path,
    listener: Listener,
    tell: Callable[[str], None],
    *,
    fetched: Path | None = None,
    run: Run = isolate.run,
) -> Result:
    """Wait until no other process measures on this machine, and measure a variant in its own processes.

    Args:
        variant: The variant to measure.
        folder: An empty folder for the model, the records and the logs.
        listener: Receives each progress event. An exception that it raises ends the measurement.
        tell: Receives a message about the process that this waits for.
        fetched: Local copy of a model from the tracking server: a worker does not know the server.
        run: Measures the variant; replaced in tests.

    Returns:
        One result, whatever happens in the processes. Its variant is the requested one, without the path of the local
        copy, which is valid only on this machine and for now.
    """
    placed = variant if fetched is None else dataclasses.replace(variant, weights=str(fetched))
    with machine_lock.alone(tell):
        result = run(placed, folder, listener)
    return dataclasses.replace(result, variant=dataclasses.replace(result.variant, weights=variant.weights))
