"""The machines of a Ray cluster: which there are, which can measure, and what each is doing."""

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
_LOOK_SECONDS = 2.0  # between two looks at which machines there are
_WAIT_SECONDS = 1.0


@dataclass
class Machine:
    """A machine, from when it was first seen.

    Attributes:
        seen: as Ray lists it.
        answer: the reference of what it says it is.
        node: what it is; None as long as it did not answer.
        is_used: whether variants may go there; not when it can't measure, is gone, or fails at everything.
        flight: what is measured there; None while it is free.
        read: how many items of all machines had been read when one of this machine was.
    """

    seen: Seen
    answer: Any
    node: Node | None = None
    is_used: bool = True
    flight: Flight | None = None
    read: int = 0


class Machines:
    """Knows the machines of a cluster.

    Args:
        cluster: the cluster.
        ask: asks a machine what it is, and returns the reference of the answer.
        tell: told in a sentence which came and went.

    Attributes:
        last: the machine that was lost last, or the first: what can't be measured any more is told of it.
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
        return [each.node for each in self._known.values() if each.is_used and each.node is not None]

    @property
    def flights(self) -> list[Flight]:
        """Return what is measured, that which was read longest ago first."""
        machines = sorted(self._known.values(), key=lambda machine: machine.read)
        return [machine.flight for machine in machines if machine.flight is not None]

    def begin(self) -> None:
        """Ask all machines that there are.

        Raises:
            RecipeError: there is none, or one can't measure.
        """
        for id_, seen in self._cluster.machines().items():
            self._known[id_] = Machine(seen, self._ask(seen))
        if not self._known:
            raise RecipeError(
                "The Ray cluster has no machine that may measure: none has processors to hand out. Add one: "
                "ray start --address=HOST:PORT"
            )
        wrong, gone = [], []
        for machine in self._known.values():
            try:
                self._meet(machine, _DESCRIBE_SECONDS)
            except ray_interview.GoneError as error:
                gone.append(str(error))
            except RecipeError as error:
                wrong.append(str(error))
        if wrong or not self.nodes:
            raise RecipeError(" ".join(wrong or gone))
        for text in gone:
            self._tell(text)
        self.last = self.nodes[0]

    def look(self) -> bool:
        """See which machines came and went, unless that was done just now; return whether it was done."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        alive = self._cluster.machines()
        for id_, machine in self._known.items():
            if id_ not in alive and machine.flight is None and machine.is_used and machine.node is not None:
                self.lose(machine.node)
        for id_, seen in alive.items():
            if id_ not in self._known:
                self._known[id_] = Machine(seen, self._ask(seen))
            else:
                self._greet(self._known[id_])
        return True

    def is_free(self, node: Node) -> bool:
        """Return whether a machine may measure now."""
        machine = self._known[node.id]
        return machine.is_used and machine.flight is None

    def takes(self, flight: Flight) -> None:
        """Note what a machine measures."""
        self._known[flight.at.id].flight = flight

    def reads(self, flight: Flight) -> None:
        """Note that an item of a flight is read: the others are next."""
        self._known[flight.at.id].read = next(self._items)

    def ends(self, flight: Flight) -> None:
        """Note that a machine is free."""
        self._known[flight.at.id].flight = None

    def seen(self, node: Node) -> Seen:
        """Return a machine as Ray lists it."""
        return self._known[node.id].seen

    def lose(self, node: Node) -> None:
        """Use a machine no longer."""
        self.last = node
        self._known[node.id].is_used = False
        self._tell(f"{node.name} is not used any longer: it is gone, or fails at everything")

    def introduce(self) -> None:
        """Make the names of machines differ, and tell what is to be known of new ones."""
        for remark, names in self._remarks.items():
            self._tell(remark.format(", ".join(dict.fromkeys(names))))
        self._remarks.clear()
        names = [node.name for node in self.nodes]
        for node in self.nodes:
            if names.count(node.name) > 1:
                node.name = f"{node.name}#{node.id[:6]}"

    def _greet(self, machine: Machine) -> None:
        """Use a machine that came later, as soon as it says what it is."""
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
        """Read what a machine says it is.

        Raises:
            RecipeError: it can't measure, and why.
        """
        try:
            machine.node, remarks = ray_interview.read(self._cluster, machine.seen, machine.answer, seconds)
        except RecipeError:
            machine.is_used = False
            raise
        for remark in remarks:
            self._remarks.setdefault(remark, []).append(machine.node.name)
        return machine.node
