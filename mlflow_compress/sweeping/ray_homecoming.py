"""`Homecoming`: brings what arrived from the nodes to the tracking server, in a thread of its own.

Logging takes longer than handing out variants: machines must not wait for it.
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
    """Logs results, each after its original where its scores are paired with that.

    Args:
        delivery: brings the results home.
        placing: told of each variant that has a result.
        board: shows the progress.
        show: told of each result when it is home.
    """

    def __init__(self, delivery: Delivery, placing: Placing, board: Board, show: Callable[[Result], None]) -> None:
        self._delivery, self._placing, self._board, self._show = delivery, placing, board, show
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._held: list[Flight] = []  # scored before their original was
        self._lock = threading.Lock()
        self.results: list[Result] = []

    @property
    def is_busy(self) -> bool:
        """Return whether results wait to be logged."""
        return bool(self._waiting)

    def land(self, flight: Flight) -> None:
        """Log what a node measured."""
        self._waiting.append(self._thread.submit(self._deliver, flight))

    def log(self, flight: Flight, result: Result) -> None:
        """Log a result that no node measured."""
        self._waiting.append(self._thread.submit(self._log, flight, result))

    def have(self, variant: Variant, result: Result) -> None:
        """Note the result of a variant that is home."""
        with self._lock:  # this is the loop's, or the thread's that logs
            self._placing.done(variant)
            self._board.done(result)
            self._show(result)
            self.results.append(dataclasses.replace(result, samples={}))

    def reap(self, most: int) -> None:
        """Wait until at most so many results wait to be logged.

        Raises:
            StoreError: one can neither be logged nor kept.
        """
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()

    def stop(self) -> None:
        """Log what is home, paired or not."""
        self._thread.shutdown(wait=True)
        while self._held:
            with contextlib.suppress(Exception):
                flight = self._held.pop()
                self._log(flight, flight.entry.read(self._board.tell).result)

    def _deliver(self, flight: Flight) -> None:
        """Read what arrived. What is to be paired with an original that is still out waits for that, on disk."""
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
        """Log a result, and those that waited for it."""
        try:
            result = self._delivery.deliver(self._shipment(flight, result))
        finally:
            flight.close()
        self.have(flight.variant, result)
        group = self._placing.group(flight.variant)
        ready = [] if group.originals else [each for each in self._held if self._placing.group(each.variant) is group]
        self._held = [each for each in self._held if each not in ready]
        for other in ready:
            self._log(other, other.entry.read(self._board.tell).result)

    def _shipment(self, flight: Flight, result: Result) -> Shipment:
        def tell(text: str) -> None:
            self._board.tell(f"{flight.who} ({flight.at.name}): {text}")

        return Shipment(flight.entry, result, self._delivery.log.address(flight.digest), tell)
