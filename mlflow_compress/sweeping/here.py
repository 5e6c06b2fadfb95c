"""Sweeps on this machine: one variant after the other, each logged before the next begins."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.combine import unmeasured
from mlflow_compress.measuring.measure_one import measure_one
from mlflow_compress.measuring.model_trial import fails_all
from mlflow_compress.measuring.prepared_originals import PreparedOriginals
from mlflow_compress.planning import requirements
from mlflow_compress.records import Result, Variant
from mlflow_compress.sweeping import resume
from mlflow_compress.tracking.spool import Shipment

if TYPE_CHECKING:
    from mlflow_compress.planning.order import Queue
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.sweeping.progress import Progress
    from mlflow_compress.tracking.spool import Entry


def sweep(
    queue: Queue, delivery: Delivery, progress: Progress, show: Callable[[Result], None], again: bool
) -> list[Result]:
    """Measure all queued variants on this machine.

    Args:
        queue: The variants.
        delivery: Delivers the results.
        progress: Shows the progress.
        show: Called with each delivered result.
        again: Whether to measure variants again that the experiment already has.

    Raises:
        StoreError: The server refused a result, and it could not be written to disk.
    """
    count = len(queue.waiting)
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        stack.callback(progress.close)  # also after Ctrl-C, so that the message starts on a new line
        originals = None
        if any(variant.interleave for variant in queue.waiting):
            originals = PreparedOriginals(stack.enter_context(delivery.entry(progress.end)).folder)
        while (variant := queue.take()) is not None:
            position = f"[{len(results) + 1}/{count}] " if count > 1 else ""
            progress.begin(f"{position}{variant.model}, {variant.label}")
            digest = resume.digest(variant)
            earlier_result = None if again else delivery.earlier(variant, digest, progress.end)
            results.append(earlier_result or _measured(variant, digest, delivery, progress, originals))
            if fails_all(results[-1]):
                queue.leave_out(variant, [result.variant for result in results if result.status == "ok"])
            show(results[-1])
    return results


def _measured(
    variant: Variant, digest: str, delivery: Delivery, progress: Progress, originals: PreparedOriginals | None
) -> Result:
    """Measure one variant, and log it."""
    with delivery.entry(progress.end) as entry:
        lack = requirements.unmet(variant.requires, requirements.here()) if variant.requires else ""
        result = (
            unmeasured(variant, "skipped", lack) if lack else _measure(variant, entry, delivery, progress, originals)
        )
        return delivery.deliver(Shipment(entry, result, delivery.log.address(digest), progress.end))


def _measure(
    variant: Variant, entry: Entry, delivery: Delivery, progress: Progress, originals: PreparedOriginals | None
) -> Result:
    def listen(event: Mapping[str, Any]) -> None:
        delivery.check()  # notice a server that refuses at once, not after the download of the weights
        progress.event(event)

    fetched = delivery.log.fetched(variant, lambda: progress.event({"stage": "fetching"}))
    # MLflow is imported while the variant is prepared
    run = functools.partial(isolate.run, ready=lambda: delivery.log, originals=originals)
    result = measure_one(variant, entry.folder, listen, progress.end, fetched=fetched, run=run)
    progress.event({"stage": "logging"})
    return result
