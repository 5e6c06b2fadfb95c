from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_compress.records import Variant
from mlflow_compress.sweeping.placement import Node
from mlflow_compress.sweeping.ray_flight import Flight
from mlflow_compress.tracking.spool import Spool

VARIANT = Variant("m", "fp16", "t", "python", "m.py", batch_size=4)


@pytest.fixture
def flight(tmp_path: Path) -> Iterator[Flight]:
    entry = Spool(tmp_path / "spool").begin()
    stack = contextlib.ExitStack()
    stack.callback(entry.remove)
    flight = Flight(VARIANT, VARIANT, "digest", Node("id", "liar", {}), entry, stack)
    yield flight
    flight.close()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", ""])
def test_a_node_can_not_write_outside_the_spool(flight: Flight, name: str) -> None:
    with pytest.raises(OSError, match="liar sent"):
        flight.take(name, b"")


def test_pieces_of_a_file_are_put_together(flight: Flight) -> None:
    for name, chunk in (("model/a.bin", b"12"), ("model/a.bin", b"345"), ("empty", b""), ("b.log", b"6")):
        flight.take(name, chunk)
    flight.finish()
    contents = {path.name: path.read_bytes() for path in flight.entry.folder.rglob("*") if path.is_file()}
    assert contents == {"a.bin": b"12345", "empty": b"", "b.log": b"6"}


def test_closing_it_closes_the_entry(flight: Flight) -> None:
    flight.take("a", b"1")
    flight.close()
    assert not flight.entry.folder.exists()


def test_it_is_named_as_its_row(flight: Flight) -> None:
    assert flight.who == "m, fp16 [batch 4]"
