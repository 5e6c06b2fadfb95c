"""The machines of a cluster, with a fake cluster."""

from __future__ import annotations

import platform
from typing import Any, cast

import pytest

from mlflow_compress.errors import RecipeError
from mlflow_compress.sweeping import ray_machines
from mlflow_compress.sweeping.ray_cluster import Cluster, Seen, version
from mlflow_compress.sweeping.ray_flight import Flight
from mlflow_compress.sweeping.ray_machines import Machines
from mlflow_compress.version import __version__

ray = pytest.importorskip("ray", reason="Ray is not installed")
exceptions = pytest.importorskip("ray.exceptions")
MACHINE = {"python": platform.python_version(), "version": __version__, "cpu_model": "Xeon"}


class PlayedCluster:
    """A fake cluster whose machines answer as the test sets them; the reference of an answer is the machine's id."""

    errors = exceptions

    def __init__(self, **names: str) -> None:
        self.alive = {id_: Seen(id_, name, "10.0.0.1") for id_, name in names.items()}
        self.answers: dict[str, Any] = {}
        self.silent: set[str] = set()

    def machines(self) -> dict[str, Seen]:
        return dict(self.alive)

    def answer(self, reference: str, seconds: float) -> Any:
        answer = self.answers.get(reference, {})
        if isinstance(answer, Exception):
            raise answer
        well = {"machine": MACHINE, "ray": version(), "niceness": 0, "unreachable": "", "parcels": {}}
        return {**well, **answer}

    def ready(self, waiting: list[str], seconds: float) -> list[str]:
        return [reference for reference in waiting if reference not in self.silent]

    def is_machine_lost(self, error: Exception) -> bool:
        return isinstance(error, exceptions.TaskUnschedulableError)


class Played:
    """The machines of a fake cluster, and the messages about them."""

    def __init__(self, cluster: PlayedCluster) -> None:
        self.messages: list[str] = []
        self.asked: list[str] = []
        self.machines = Machines(cast(Cluster, cluster), self.ask, self.messages.append)

    def ask(self, machine: Seen) -> str:
        self.asked.append(machine.id)
        return machine.id

    def names(self) -> list[str]:
        return [node.name for node in self.machines.nodes]


@pytest.fixture(autouse=True)
def _looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_machines, "_LOOK_SECONDS", 0.0)


def test_each_is_asked_once_and_may_measure() -> None:
    played = Played(PlayedCluster(a="lab1", b="lab2"))
    played.machines.begin()
    played.machines.look()
    assert (played.names(), played.asked, played.messages) == (["lab1", "lab2"], ["a", "b"], [])


def test_no_machine_is_refused() -> None:
    with pytest.raises(RecipeError, match="ray start --address=HOST:PORT"):
        Played(PlayedCluster()).machines.begin()


def test_one_that_can_not_measure_is_refused_at_the_beginning() -> None:
    cluster = PlayedCluster(a="lab1", b="lab2")
    cluster.answers["b"] = {"ray": "0.1"}
    with pytest.raises(RecipeError, match=r"lab2 .* has Ray 0\.1"):
        Played(cluster).machines.begin()


def test_one_that_is_gone_at_the_beginning_is_reported_and_left_out() -> None:
    cluster = PlayedCluster(a="lab1", b="lab2")
    cluster.answers["a"] = exceptions.TaskUnschedulableError("gone")
    played = Played(cluster)
    played.machines.begin()
    assert played.names() == ["lab2"]
    assert played.messages == ["The machine lab1 (10.0.0.1) is gone."]


def test_one_that_comes_later_joins_when_it_answers() -> None:
    cluster = PlayedCluster(a="lab1")
    played = Played(cluster)
    played.machines.begin()
    cluster.alive["b"] = Seen("b", "lab2")
    cluster.silent = {"b"}
    for _ in range(2):
        played.machines.look()
    assert (played.names(), played.messages) == (["lab1"], [])
    cluster.silent = set()
    played.machines.look()
    assert (played.names(), played.messages) == (["lab1", "lab2"], ["lab2 joined"])
    assert played.asked == ["a", "b"]


def test_one_that_comes_later_and_can_not_measure_is_reported_once() -> None:
    cluster = PlayedCluster(a="lab1")
    played = Played(cluster)
    played.machines.begin()
    cluster.alive["b"] = Seen("b", "lab2")
    cluster.answers["b"] = {"ray": "0.1"}
    for _ in range(4):
        played.machines.look()
    assert played.names() == ["lab1"]
    assert len(played.messages) == 1
    assert played.messages[0].endswith("It is not used.")


def test_one_that_goes_is_lost_but_not_before_its_flight_is() -> None:
    cluster = PlayedCluster(a="lab1", b="lab2")
    played = Played(cluster)
    played.machines.begin()
    first, second = played.machines.nodes
    flight = cast(Flight, type("Landing", (), {"at": first})())
    played.machines.takes(flight)
    assert (played.machines.is_free(first), played.machines.is_free(second)) == (False, True)
    cluster.alive = {}
    played.machines.look()
    assert played.names() == ["lab1"]
    assert played.machines.last is second
    played.machines.ends(flight)
    played.machines.look()
    assert played.names() == []
    assert played.machines.last is first
    assert not played.machines.is_free(first)
    assert [text.partition(" is not used")[0] for text in played.messages] == ["lab2", "lab1"]


def test_what_was_read_longest_ago_is_next() -> None:
    played = Played(PlayedCluster(a="lab1", b="lab2", c="lab3"))
    played.machines.begin()
    flights = [cast(Flight, type("Flying", (), {"at": node})()) for node in played.machines.nodes]
    for flight in flights:
        played.machines.takes(flight)
    for flight in (flights[1], flights[0]):
        played.machines.reads(flight)
    assert played.machines.flights == [flights[2], flights[1], flights[0]]


def test_machines_of_one_name_get_unique_names_and_remarks_are_shown_once() -> None:
    cluster = PlayedCluster(abcdefgh="lab", ijklmnop="lab", q="other")
    cluster.answers = {"abcdefgh": {"niceness": 5}, "q": {"niceness": 5}}
    played = Played(cluster)
    played.machines.begin()
    for _ in range(2):
        played.machines.introduce()
    assert played.names() == ["lab#abcdef", "lab#ijklmn", "other"]
    assert [text.partition(": ")[0] for text in played.messages] == ["lab, other"]
