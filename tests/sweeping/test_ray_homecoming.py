"""Results that arrive are logged in the right order, also if the server refuses some."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Outcome, Result, Step, Variant, write_json
from mlflow_compress.sweeping import ray_node
from mlflow_compress.sweeping.delivery import Delivery
from mlflow_compress.sweeping.placement import Node, Placing
from mlflow_compress.sweeping.progress import Board
from mlflow_compress.sweeping.ray_flight import Flight
from mlflow_compress.sweeping.ray_homecoming import Homecoming
from mlflow_compress.tracking.spool import Address, Shipment, Spool


def variant(method: str) -> Variant:
    return Variant("m", method, "t", "python", "m.py", chain=(Step(method),), interleave=True)


class PlayedDelivery:
    """A fake tracking server that records what was logged."""

    def __init__(self) -> None:
        self.logged: list[Result] = []
        self.refuses = False
        self.may_log = threading.Event()
        self.may_log.set()
        self.log = self

    def address(self, digest: str) -> Address:
        return Address("sqlite:///x.db", "hw1", digest=digest)

    def deliver(self, shipment: Shipment) -> Result:
        assert self.may_log.wait(60)
        if self.refuses:
            raise StoreError("the server refused it")
        shipment.tell("ok")
        self.logged.append(shipment.result)
        return shipment.result


class Port:
    """Sends results, as nodes do."""

    def __init__(self, folder: Path, *methods: str) -> None:
        self._spool = Spool(folder)
        self.variants = {method: variant(method) for method in methods}
        self.delivery = PlayedDelivery()
        self.shown: list[str] = []
        self.stream = io.StringIO()
        placing = Placing(self.variants.values())
        show = cast(Callable[[Result], None], lambda result: self.shown.append(result.variant.method))
        self.home = Homecoming(cast(Delivery, self.delivery), placing, Board(self.stream), show)

    def land(self, method: str, scored: bool = False) -> Flight:
        stack = contextlib.ExitStack()
        entry = self._spool.begin()
        stack.callback(entry.remove)
        flight = Flight(self.variants[method], self.variants[method], "digest", Node("id", "lab1", {}), entry, stack)
        sent = Variant("m", method, "t", "python", "/parcels/0/m.py", chain=(Step(method),))
        result = Result(sent, "ok", samples={"x": [1.0]}, outcomes={"cpu": Outcome("ok")})
        write_json(entry.folder / ray_node.RESULT, result)
        if scored:
            (entry.folder / "predictions.json").write_text("{}")
        self.home.land(flight)
        return flight


@pytest.fixture
def port(tmp_path: Path) -> Any:
    return lambda *methods: Port(tmp_path / "spool", *methods)


def test_a_result_is_of_the_variant_as_it_was_placed(port: Any) -> None:
    here = port("original")
    flight = here.land("original")
    here.home.stop()
    here.home.reap(0)
    (logged,) = here.delivery.logged
    assert (logged.variant.source, logged.variant.interleave) == ("m.py", False)  # whether it took turns, the node says
    assert logged.facts["node"] == "lab1"
    assert logged.samples == {"x": [1.0]}
    (kept,) = here.home.results
    assert not kept.samples  # they are logged, and many
    assert "m, original (lab1): ok" in here.stream.getvalue()
    assert not flight.entry.folder.exists()
    assert not here.home.is_busy


def test_what_is_paired_waits_for_its_original(port: Any) -> None:
    here = port("fp16", "original", "int8", "bf16")
    waiting = here.land("fp16", scored=True)
    here.land("int8")  # was not scored, so there is nothing to pair
    here.land("original", scored=True)
    here.land("bf16", scored=True)
    here.home.stop()
    here.home.reap(0)
    assert here.shown == ["int8", "original", "fp16", "bf16"]
    assert [result.variant.method for result in here.delivery.logged] == here.shown
    assert not waiting.entry.folder.exists()


def test_what_waits_for_an_original_that_never_comes_is_logged_at_the_end(port: Any) -> None:
    here = port("fp16", "original")
    here.land("fp16", scored=True)
    here.home.stop()
    assert here.shown == ["fp16"]


def test_results_that_wait_are_counted_and_waited_for(port: Any) -> None:
    here = port("a", "b", "c")
    here.delivery.may_log.clear()
    for method in ("a", "b", "c"):
        here.land(method)
    here.home.reap(3)
    assert here.home.is_busy
    assert here.shown == []
    here.delivery.may_log.set()
    here.home.reap(1)
    assert len(here.shown) >= 2
    here.home.stop()
    here.home.reap(0)
    assert here.shown == ["a", "b", "c"]


def test_a_server_that_refuses_ends_the_sweep(port: Any) -> None:
    here = port("original")
    here.delivery.refuses = True
    flight = here.land("original")
    here.home.stop()
    with pytest.raises(StoreError, match="the server refused it"):
        here.home.reap(0)
    assert here.shown == []
    assert not flight.entry.folder.exists()


def test_a_result_without_a_measurement_goes_the_same_way(port: Any) -> None:
    here = port("original")
    here.home.have(here.variants["original"], Result(here.variants["original"], "ok", samples={"x": [1.0]}))
    assert here.shown == ["original"]
    assert here.delivery.logged == []
    assert not here.home.results[0].samples
