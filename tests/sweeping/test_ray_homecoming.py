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
        variant = Variant("m", method, "t", "python", "/parcels/0/m.py", chain=(Step(method),))
        result = Result(variant, "ok", samples={"x": [1.0]}, outcomes={"cpu": Outcome("ok")})
        write_json(entry.folder / ray_node.RESULT, result)
        if scored:
            (entry.folder / "predictions.json").write_text("{}")
        self.home.land(flight)
        return flight


@pytest.fixture
def port(tmp_path: Path) -> Any:
    return lambda *methods: Port(tmp_path / "spool", *methods)


def test_a_result_is_of_the_variant_as_it_was_placed(port: Any) -> None:
    home_port = port("original")
    flight = home_port.land("original")
    home_port.home.stop()
    home_port.home.reap(0)
    (logged,) = home_port.delivery.logged
    assert (logged.variant.source, logged.variant.interleave) == ("m.py", False)  # whether it took turns, the node says
    assert logged.facts["node"] == "lab1"
    assert logged.samples == {"x": [1.0]}
    (result,) = home_port.home.results
    assert not result.samples  # they are logged, and many
    assert "m, original (lab1): ok" in home_port.stream.getvalue()
    assert not flight.entry.folder.exists()
    assert not home_port.home.is_busy


def test_what_is_paired_waits_for_its_original(port: Any) -> None:
    home_port = port("fp16", "original", "int8", "bf16")
    waiting = home_port.land("fp16", scored=True)
    home_port.land("int8")  # was not scored, so there is nothing to pair
    home_port.land("original", scored=True)
    home_port.land("bf16", scored=True)
    home_port.home.stop()
    home_port.home.reap(0)
    assert home_port.shown == ["int8", "original", "fp16", "bf16"]
    assert [result.variant.method for result in home_port.delivery.logged] == home_port.shown
    assert not waiting.entry.folder.exists()


def test_what_waits_for_an_original_that_never_comes_is_logged_at_the_end(port: Any) -> None:
    home_port = port("fp16", "original")
    home_port.land("fp16", scored=True)
    home_port.home.stop()
    assert home_port.shown == ["fp16"]


def test_results_that_wait_are_counted_and_waited_for(port: Any) -> None:
    home_port = port("a", "b", "c")
    home_port.delivery.may_log.clear()
    for method in ("a", "b", "c"):
        home_port.land(method)
    home_port.home.reap(3)
    assert home_port.home.is_busy
    assert home_port.shown == []
    home_port.delivery.may_log.set()
    home_port.home.reap(1)
    assert len(home_port.shown) >= 2
    home_port.home.stop()
    home_port.home.reap(0)
    assert home_port.shown == ["a", "b", "c"]


def test_a_server_that_refuses_ends_the_sweep(port: Any) -> None:
    home_port = port("original")
    home_port.delivery.refuses = True
    flight = home_port.land("original")
    home_port.home.stop()
    with pytest.raises(StoreError, match="the server refused it"):
        home_port.home.reap(0)
    assert home_port.shown == []
    assert not flight.entry.folder.exists()


def test_a_result_without_a_measurement_goes_the_same_way(port: Any) -> None:
    home_port = port("original")
    home_port.home.have(
        home_port.variants["original"], Result(home_port.variants["original"], "ok", samples={"x": [1.0]})
    )
    assert home_port.shown == ["original"]
    assert home_port.delivery.logged == []
    assert not home_port.home.results[0].samples
