"""`Homecoming`: log the results of the nodes to the tracking server, in a separate thread.

Logging is slower than distributing variants: machines must not wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlflow_compress.measuring import isolate, worker_part
from mlflow_compress.records import Result, Variant, read_json
from mlflow_compress.sweeping import ray_node
from mlflow_compress.sweeping.ray_flight import Flight
from mlflow_compress.tracking.spool import Shipment

if TYPE_CHECKING:
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.sweeping.placement import Placing
    from mlflow_compress.sweeping.progress import Board


class Homecoming:
    """Logs results. A result whose scores are paired with its original's is logged after the original.

    Args:
        delivery: Delivers the results.
        placing: Records each variant that has a result.
        board: Shows the progress.
        show: Called with each delivered result.
    """

    def __init__(self, delivery: Delivery, placing: Placing, board: Board, show: Callable[[Result], None]) -> None:
        self._delivery, self._placing, self._board, self._show = delivery, placing, board, show
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._held: list[Flight] = []  # scored before their original
        self._lock = threading.Lock()
        self.results: list[Result] = []

    @property
    def is_busy(self) -> bool:
        """Return whether results wait to be logged."""
        return bool(self._waiting)

    def land(self, flight: Flight) -> None:
        """Log the result of a node."""
        self._waiting.append(self._thread.submit(self._deliver, flight))

    def log(self, flight: Flight, result: Result) -> None:
        """Log a result that was not measured on a node."""
        self._waiting.append(self._thread.submit(self._log, flight, result))

    def have(self, variant: Variant, result: Result) -> None:
        """Record the delivered result of a variant."""
        with self._lock:  # called from the main loop and from the logging thread
            self._placing.done(variant)
            self._board.done(result)
            self._show(result)
            self.results.append(dataclasses.replace(result, samples={}))

    def reap(self, most: int) -> None:
        """Wait until at most `most` results are left to be logged.

        Raises:
            StoreError: A result can neither be logged nor written to disk.
        """
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()

    def stop(self) -> None:
        """Log all results that arrived, paired or not."""
        self._thread.shutdown(wait=True)
        while self._held:
            with contextlib.suppress(Exception):
                flight = self._held.pop()
                self._log(flight, flight.entry.read(self._board.tell).result)

    def _deliver(self, flight: Flight) -> None:
        """Read a result and log it. If its original has no result yet, it waits on disk for pairing."""
        result = Result.from_json(read_json(flight.entry.folder / ray_node.RESULT, worker_part.RESULT_BYTES))
        variant = dataclasses.replace(flight.placed, interleave=result.variant.interleave)
        result = dataclasses.replace(result, variant=variant, facts={**result.facts, "node": flight.at.name})
        is_paired = isolate.tables(flight.entry.folder) and not variant.is_original
        if is_paired and self._placing.group(flight.variant).originals:
            self._shipment(flight, result).keep()
            self._held.append(flight)
            return
        self._log(flight, result)

    def _log(self, flight: Flight, result: Result) -> None:
        """Log a result, and the results that waited for it."""
        try:
            result = self._delivery.deliver(self._shipment(flight, result))
        finally:
            flight.close()
        self.have(flight.variant, result)
        group = self._placing.group(flight.variant)
        ready = [] if group.originals else [held for held in self._held if self._placing.group(held.variant) is group]
        self._held = [held for held in self._held if held not in ready]
        for ready_flight in ready:
            self._log(ready_flight, ready_flight.entry.read(self._board.tell).result)

    def _shipment(self, flight: Flight, result: Result) -> Shipment:
        def tell(text: str) -> None:
            self._board.tell(f"{flight.who} ({flight.at.name}): {text}")

        return Shipment(flight.entry, result, self._delivery.log.address(flight.digest), tell)
