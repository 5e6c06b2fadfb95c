"""Sweeps over the machines of a Ray cluster: distribute the variants, and handle lost machines.

One variant is one Ray task. It requests all processors and GPUs of one node, so that two measurements never share a
machine, even if different users started them. Its progress and its files are streamed directly into the spool. If a
node is lost, its variant goes to another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.errors import WorkerError, one_line
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.combine import unmeasured
from mlflow_compress.measuring.measure_one import Run
from mlflow_compress.measuring.model_trial import fails_all
from mlflow_compress.records import Result, Status, Variant, to_json
from mlflow_compress.sweeping import file_bundle, ray_cluster, ray_interview, ray_node, resume
from mlflow_compress.sweeping.placement import Kind, Node, Placing
from mlflow_compress.sweeping.ray_cargo import Cargo
from mlflow_compress.sweeping.ray_cluster import Cluster, Seen
from mlflow_compress.sweeping.ray_flight import Flight, who
from mlflow_compress.sweeping.ray_homecoming import Homecoming
from mlflow_compress.sweeping.ray_machines import Machines
from mlflow_compress.torch_devices import CPU
from mlflow_compress.tracking.models import names_model

if TYPE_CHECKING:
    from mlflow_compress.planning.order import Queue
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.sweeping.progress import Board

_WAIT_SECONDS = 1.0
_STOP_SECONDS = 8.0
_GRACE_SECONDS = 30.0  # to wait for a replacement of a lost machine
_MOST_ATTEMPTS = 4
_MOST_FAILURES = 3  # in a row; then a node is not used any more
_MOST_WAITING = 8  # unlogged results; with more, machines wait, too


@dataclasses.dataclass(frozen=True)
class Task:
    """Settings that are the same for all variants of a sweep.

    Attributes:
        tracking_uri: Address of the tracking server.
        with_model: Whether models are sent back.
        again: Whether to measure variants again that the experiment already has.
        auto_device: Whether to measure on the GPU, too, if a node has one.
        run: Measures a variant on the node.
        grace_seconds: Seconds to wait for a replacement of a lost machine.
    """

    tracking_uri: str = ""
    with_model: bool = True
    again: bool = False
    auto_device: bool = False
    run: Run = isolate.run
    grace_seconds: float = _GRACE_SECONDS

    def placed(self, variant: Variant, at: Node) -> Variant:
        """Return a variant with the devices of a node, unless the user named the devices."""
        if not self.auto_device:
            return variant
        accelerator = at.machine.get("gpu_device", "cuda")
        return dataclasses.replace(variant, devices=(CPU, accelerator) if "gpu_model" in at.machine else (CPU,))


def sweep(
    queue: Queue, address: str, task: Task, delivery: Delivery, board: Board, show: Callable[[Result], None]
) -> list[Result]:
    """Measure all queued variants on the machines of a Ray cluster.

    Args:
        queue: The variants.
        address: Address of the cluster: `auto`, or HOST:PORT.
        task: Settings for all variants.
        delivery: Delivers the results.
        board: Shows the progress.
        show: Called with each delivered result.

    Returns:
        The results in order of arrival, without samples.

    Raises:
        RecipeError: Ray is not installed, there is no cluster, or a node can't measure; nothing was run.
        WorkerError: The cluster is gone.
        StoreError: The server refused a result, and it could not be written to disk.
    """
    with contextlib.closing(board), ray_cluster.connected(address) as cluster:
        try:
            return _Sweep(cluster, queue, task, delivery, board, show).run()
        except cluster.errors.RayError as error:
            raise WorkerError(
                f"The Ray cluster is gone: {one_line(error)} Results that arrived are logged. When the cluster is "
                "back, run the same command again to continue."
            ) from None


class _Sweep:
    """Distributes queued variants to free machines, until the queue is empty and all results have arrived."""

    def __init__(
        self,
        cluster: Cluster,
        queue: Queue,
        task: Task,
        delivery: Delivery,
        board: Board,
        show: Callable[[Result], None],
    ) -> None:
        self._cluster, self._queue, self._task = cluster, queue, task
        self._delivery, self._board = delivery, board
        self._placing = Placing(queue.waiting)
        self._machines = Machines(cluster, self._ask, board.tell)
        self._cargo = Cargo(cluster, self._fetched)
        self._home = Homecoming(delivery, self._placing, board, show)
        self._stranded_since: dict[Kind | None, float] = {}

    def run(self) -> list[Result]:
        try:
            self._begin()
            while True:
                if self._machines.look():
                    self._rescue()
                self._hand_out()
                if not self._machines.flights and not self._home.is_busy and not self._rescue():
                    break
                self._read()
                self._home.reap(_MOST_WAITING)
                self._leave_out()
        finally:
            self._stop()
        self._home.reap(0)
        return self._home.results

    def _leave_out(self) -> None:
        """Skip the variants of a model that can't be measured. Weights missing on one machine may be on another."""
        results = list(self._home.results)
        succeeded = [result.variant for result in results if result.status == "ok"]
        for result in filter(fails_all, results):
            if result.cause == "recipe":
                self._queue.leave_out(result.variant, succeeded)

    def _begin(self) -> None:
        """Check that all nodes can measure, and skip the variants that no node may measure."""
        waiting = self._queue.waiting
        for variant in waiting:
            self._cargo.needs(variant)
        self._machines.begin()
        nodes = self._machines.nodes
        self._cargo.require_small(nodes)
        self._machines.introduce()
        self._board.begin(len(waiting), [node.name for node in nodes])
        if not self._task.again and len({node.kind for node in nodes}) > 1:
            self._bind_measured(nodes)
        while unfit := self._queue.take(lambda variant: bool(self._placing.homeless(variant, nodes))):
            self._give_up(unfit, "skipped", self._placing.homeless(unfit, nodes), nodes[0])

    def _ask(self, machine: Seen) -> Any:
        """Ask a machine for its description."""
        parcels = self._cargo.described()
        return self._cluster.ask(machine.id, ray_interview.describe, self._task.tracking_uri, parcels, machine.gpus > 0)

    def _bind_measured(self, nodes: Sequence[Node]) -> None:
        """Bind models to the hardware on which an earlier sweep measured some of their variants."""
        for variant in self._queue.waiting:
            for node in {node.kind: node for node in nodes}.values():
                if self._placing.group(variant).kind is None and not self._placing.homeless(variant, [node]):
                    placed = self._task.placed(variant, node)
                    digest = resume.digest(placed, node.machine)
                    if self._delivery.earlier(placed, digest, lambda text: None) is not None:
                        self._placing.bind(variant, node.kind)

    def _hand_out(self) -> None:
        """Start the next variant on each free node, those of the most common hardware first."""
        nodes = self._machines.nodes
        numbers = {node.kind: sum(candidate.kind == node.kind for candidate in nodes) for node in nodes}
        for node in sorted(nodes, key=lambda node: -numbers[node.kind]):
            while self._machines.is_free(node):
                variant = self._queue.take(self._placing.serves(node, nodes))
                if variant is None:
                    break
                self._placing.bind(variant, node.kind)
                self._start(variant, node)

    def _start(self, variant: Variant, node: Node) -> None:
        """Send a variant to a node, unless the experiment already has its result."""
        if not self._task.again:
            placed = self._task.placed(variant, node)
            digest = resume.digest(placed, node.machine)
            earlier_result = self._delivery.earlier(
                placed, digest, lambda text: self._board.tell(f"{who(variant)}: {text}")
            )
            if earlier_result is not None:
                self._home.have(variant, earlier_result)
                return
        flight = self._flight(variant, node)
        flight.generator = self._cluster.stream(self._machines.seen(node), measure, *self._sent(flight))
        self._machines.takes(flight)
        self._board.event(node.name, flight.who, {"stage": "starting"})

    def _sent(self, flight: Flight) -> tuple[Any, ...]:
        """Return the arguments of `measure` on the node."""
        needs = self._cargo.needs(flight.variant)
        location = "" if needs is None else flight.at.parcels.get(needs.digest, "")
        return (
            to_json(self._cargo.sent(flight.placed)),
            None if needs is None else to_json(needs),
            location,
            [] if needs is None or location else self._cargo.chunks(needs),
            self._task.with_model,
            flight.at.gpus > 0,
            None if self._task.run is isolate.run else self._task.run,
        )

    def _read(self) -> None:
        """Read the next item of a node."""
        flights = {flight.generator: flight for flight in self._machines.flights}
        if not flights:
            time.sleep(_WAIT_SECONDS / 10)
            return
        ready = self._cluster.ready(list(flights), _WAIT_SECONDS)
        self._delivery.check()
        for generator in ready:
            flight = flights[generator]
            self._machines.reads(flight)
            try:
                kind, item = self._cluster.item(generator)
                if kind == "file":
                    flight.take(*item)
                else:
                    self._board.event(flight.at.name, flight.who, item)
            except StopIteration:
                self._land(flight)
            except (self._cluster.errors.RayError, OSError) as error:
                self._fail(flight, error)

    def _land(self, flight: Flight) -> None:
        """Release the node, and log its result."""
        flight.finish()
        self._free(flight)
        flight.at.failures = 0
        self._home.land(flight)

    def _free(self, flight: Flight) -> None:
        self._machines.ends(flight)
        self._board.free(flight.at.name)

    def _fail(self, flight: Flight, error: Exception) -> None:
        """Put a variant back whose node or process was lost; give it up after some attempts."""
        self._cluster.cancel(flight.generator)  # the error may be on our side
        self._free(flight)
        flight.close()
        node, reason = flight.at, ray_cluster.reason(error)
        if isinstance(error, self._cluster.errors.OutOfMemoryError):
            self._give_up(flight.variant, "failed", f"out of memory: Ray killed it on {node.name}", node)
            return
        node.failures += 1
        attempts = self._placing.failed(flight.variant, node)
        if self._cluster.is_machine_lost(error) or node.failures >= _MOST_FAILURES:
            self._machines.lose(node)
        if attempts >= _MOST_ATTEMPTS:
            self._give_up(
                flight.variant, "failed", f"lost {attempts} times, the last time on {node.name}: {reason}", node
            )
            return
        self._board.tell(f"{flight.who}: lost on {node.name} ({reason}); it is measured again")
        self._queue.put_back(flight.variant)

    def _rescue(self) -> bool:
        """Move variants that wait for lost machines to other machines after a while, or give them up.

        Returns:
            Whether variants wait for lost machines.
        """
        nodes = self._machines.nodes
        stranded = [
            (variant, self._placing.group(variant).kind)
            for variant in self._queue.waiting
            if self._placing.is_stranded(variant, nodes)
        ]
        now = time.monotonic()
        self._stranded_since = {kind: self._stranded_since.get(kind, now) for _, kind in stranded}
        for variant, kind in stranded:
            if now - self._stranded_since[kind] < self._task.grace_seconds:
                continue
            reason = self._placing.homeless(variant, nodes)
            if not reason and kind is not None:
                self._board.tell(f"{who(variant)}: all machines of its kind are gone; it moves to another kind")
                self._placing.release(kind)
            elif self._queue.take(functools.partial(operator.is_, variant)) is not None:
                self._give_up(
                    variant, "failed", f"all machines that could measure it are gone: {reason}", self._machines.last
                )
        return bool(stranded)

    def _give_up(self, variant: Variant, status: Status, reason: str, node: Node) -> None:
        """Log a result without a measurement."""
        flight = self._flight(variant, node)
        result = unmeasured(flight.placed, status, reason)
        self._home.log(flight, dataclasses.replace(result, environment=dict(node.machine)))

    def _flight(self, variant: Variant, node: Node) -> Flight:
        stack = contextlib.ExitStack()
        entry = stack.enter_context(self._delivery.entry(self._board.tell))
        placed = self._task.placed(variant, node)
        return Flight(variant, placed, resume.digest(placed, node.machine), node, entry, stack)

    def _fetched(self, variant: Variant) -> Path | None:
        """Return the local path of a model from the tracking server; None for other models."""
        return self._delivery.log.fetched(variant) if names_model(variant.source) else None

    def _stop(self) -> None:
        """End the running measurements, and log the results that arrived."""
        flights = self._machines.flights
        self._cluster.stop([flight.generator for flight in flights], _STOP_SECONDS)
        for flight in flights:
            flight.close()
            self._machines.ends(flight)
        self._home.stop()


def measure(
    variant: Mapping[str, Any],
    needs: Mapping[str, Any] | None,
    where: str,
    chunks: Sequence[Any],
    with_model: bool,
    has_gpus: bool,
    run: Run | None,
) -> Iterator[ray_node.Item]:
    """On a node, measure a variant that was sent (see `ray_node.measure`)."""
    yield from ray_node.measure(
        Variant.from_json(variant),
        None if needs is None else file_bundle.Parcel.from_json(needs),
        where,
        ray_cluster.kept(chunks),
        with_model,
        has_gpus,
        run or isolate.run,
    )
