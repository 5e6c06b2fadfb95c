"""`measure_one`: one Variant to one Result on this machine, for a sweep here, a node of a cluster, and MLflow."""

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
    """Wait until nobody else measures on this machine, and measure a variant in processes of its own.

    Args:
        variant: what to measure.
        folder: an empty folder for the model, the records and the logs.
        listener: told of each event of progress. What it raises ends the measuring.
        tell: told in a sentence whom this waits for.
        fetched: where a model that the tracking server keeps was fetched to: a worker knows no server.
        run: measures; another one in tests.

    Returns:
        One result, whatever happens in the processes. Its variant is the one that was asked for: the place that its
        model was fetched to is of this machine, and of this moment.
    """
    placed = variant if fetched is None else dataclasses.replace(variant, weights=str(fetched))
    with machine_lock.alone(tell):
        result = run(placed, folder, listener)
    return dataclasses.replace(result, variant=dataclasses.replace(result.variant, weights=variant.weights))
