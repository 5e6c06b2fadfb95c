"""The machines of a Ray cluster: which ones exist, which can measure, and what each is doing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.sweeping import ray_interview
from mlflow_compress.sweeping.placement import Node
from mlflow_compress.sweeping.ray_cluster import Cluster, Seen
from mlflow_compress.sweeping.ray_flight import Flight
from mlflow_compress.tracking.spool import Tell

_DESCRIBE_SECONDS = 120.0
_LOOK_SECONDS = 2.0  # between two updates of the list of machines
_WAIT_SECONDS = 1.0


@dataclass
class Machine:
    """A machine of the cluster, from the time when it was first seen.

    Attributes:
        seen: The machine as Ray lists it.
        answer: Reference of its description.
        node: Its description; None until it answers.
        is_used: Whether variants may be measured there; false if it can't measure, is gone, or always fails.
        flight: Variant that is measured there; None while it is free.
        read: Total number of items read from all machines when this machine was read last.
    """

    seen: Seen
    answer: Any
    node: Node | None = None
    is_used: bool = True
    flight: Flight | None = None
    read: int = 0


class Machines:
    """Tracks the machines of a cluster.

    Args:
        cluster: The cluster.
        ask: Asks a machine for its description, and returns the reference of the answer.
        tell: Receives messages about machines that join or are lost.

    Attributes:
        last: The machine that was lost last, or the first one: results that can't be measured any more refer to it.
    """

    def __init__(self, cluster: Cluster, ask: Callable[[Seen], Any], tell: Tell) -> None:
        self._cluster, self._ask, self._tell = cluster, ask, tell
        self._known: dict[str, Machine] = {}
        self._remarks: dict[str, list[str]] = {}
        self._items = itertools.count(1)
        self._looked = 0.0
        self.last: Node

    @property
    def nodes(self) -> list[Node]:
        """Return the machines that may measure."""
        return [machine.node for machine in self._known.values() if machine.is_used and machine.node is not None]

    @property
    def flights(self) -> list[Flight]:
        """Return the variants being measured, the least recently read first."""
        machines = sorted(self._known.values(), key=lambda machine: machine.read)
        return [machine.flight for machine in machines if machine.flight is not None]

    def begin(self) -> None:
        """Ask all machines for their descriptions.

        Raises:
            RecipeError: There are no machines, or one can't measure.
        """
        for id_, cluster_machine in self._cluster.machines().items():
            self._known[id_] = Machine(cluster_machine, self._ask(cluster_machine))
        if not self._known:
            raise RecipeError(
                "The Ray cluster has no machine that may measure: no machine has processors to assign. Add one: "
                "ray start --address=HOST:PORT"
            )
        unfit, unreachable = [], []
        for machine in self._known.values():
            try:
                self._meet(machine, _DESCRIBE_SECONDS)
            except ray_interview.GoneError as error:
                unreachable.append(str(error))
            except RecipeError as error:
                unfit.append(str(error))
        if unfit or not self.nodes:
            raise RecipeError(" ".join(unfit or unreachable))
        for text in unreachable:
            self._tell(text)
        self.last = self.nodes[0]

    def look(self) -> bool:
        """Update the list of machines, unless that was done just now; return whether it was done."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        alive = self._cluster.machines()
        for id_, machine in self._known.items():
            if id_ not in alive and machine.flight is None and machine.is_used and machine.node is not None:
                self.lose(machine.node)
        for id_, cluster_machine in alive.items():
            if id_ not in self._known:
                self._known[id_] = Machine(cluster_machine, self._ask(cluster_machine))
            else:
                self._greet(self._known[id_])
        return True

    def is_free(self, node: Node) -> bool:
        """Return whether a machine may measure now."""
        machine = self._known[node.id]
        return machine.is_used and machine.flight is None

    def takes(self, flight: Flight) -> None:
        """Record what a machine measures."""
        self._known[flight.at.id].flight = flight

    def reads(self, flight: Flight) -> None:
        """Record that an item of a flight is read: the other flights are next."""
        self._known[flight.at.id].read = next(self._items)

    def ends(self, flight: Flight) -> None:
        """Record that a machine is free."""
        self._known[flight.at.id].flight = None

    def seen(self, node: Node) -> Seen:
        """Return a machine as Ray lists it."""
        return self._known[node.id].seen

    def lose(self, node: Node) -> None:
        """Stop using a machine."""
        self.last = node
        self._known[node.id].is_used = False
        self._tell(f"{node.name} is not used any longer: it is gone, or all measurements on it fail")

    def introduce(self) -> None:
        """Make the names of machines unique, and report the remarks about new ones."""
        for remark, names in self._remarks.items():
            self._tell(remark.format(", ".join(dict.fromkeys(names))))
        self._remarks.clear()
        names = [node.name for node in self.nodes]
        for node in self.nodes:
            if names.count(node.name) > 1:
                node.name = f"{node.name}#{node.id[:6]}"

    def _greet(self, machine: Machine) -> None:
        """Use a machine that joined later, as soon as it has answered."""
        is_waited_for = machine.is_used and machine.node is None
        if not is_waited_for or not self._cluster.ready([machine.answer], 0):
            return
        try:
            node = self._meet(machine, _WAIT_SECONDS)
        except RecipeError as error:
            self._tell(f"{error} It is not used.")
            return
        self.introduce()
        self._tell(f"{node.name} joined")

    def _meet(self, machine: Machine, seconds: float) -> Node:
        """Read the description of a machine.

        Raises:
            RecipeError: The machine can't measure; the message says why.
        """
        try:
            machine.node, remarks = ray_interview.read(self._cluster, machine.seen, machine.answer, seconds)
        except RecipeError:
            machine.is_used = False
            raise
        for remark in remarks:
            self._remarks.setdefault(remark, []).append(machine.node.name)
        return machine.node
