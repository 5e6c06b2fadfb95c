"""Which progress events of a worker are read, and how many."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from mlflow_compress.measuring import worker_events
from mlflow_compress.measuring.worker_events import WorkerEvents, event

_TOO_LONG = b'{"stage": "' + b"x" * 20_000 + b'"}'


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{", b"[1]", b"3", b"null", b"noise\n", b"\xff\xfe", b'{"stage": "half'),
        *(b"[" * 9000, b'{"a":' * 3000, _TOO_LONG),
    ],
)
def test_a_line_that_is_not_an_event_is_ignored(line: bytes) -> None:
    assert event(line) == {}


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b'{"stage": "loading"}', {"stage": "loading"}),
        (
            b'{"stage": "timing", "done": 3, "total": 4, "seconds_left": 0.5}',
            {"stage": "timing", "done": 3, "total": 4, "seconds_left": 0.5},
        ),
        (b'{"stage": "a", "done": 3, "total": null, "seconds_left": null}', {"stage": "a", "done": 3}),
        (b'{"stage": [1], "done": "3", "total": {}, "seconds_left": "soon", "other": 1}', {}),
        (b'{"stage": "a", "done": NaN, "total": Infinity, "seconds_left": -1}', {"stage": "a"}),
        (b'{"stage": "a", "done": true, "seconds_left": 1e999}', {"stage": "a"}),
        (b'{"stage": "a", "done": 1' + b"0" * 4000 + b"}", {"stage": "a"}),
        (
            b'{"turn": {"count": 3, "seconds": 0.25, "call_ms": 5, "other": 1}}',
            {"turn": {"count": 3, "seconds": 0.25, "call_ms": 5}},
        ),
        (b'{"turn": 3}', {}),
        (b'{"turn": {"count": "3", "seconds": 1, "call_ms": 1}}', {}),
        (b'{"turn": {"count": 3, "seconds": 1}}', {}),
        (b'{"stage": "a", "warning": "' + b"w" * 9000 + b'"}', {"stage": "a", "warning": "w" * 2000}),
    ],
)
def test_an_event_has_only_valid_fields(line: bytes, parsed: dict[str, Any]) -> None:
    assert event(line) == parsed


def test_the_thousandth_event_comes_and_a_long_line_hides_no_other() -> None:
    lines = [b'{"done": %d}' % number for number in range(1000)]
    lines[500:500] = [b"x" * 200_000, b"{" * 50_000]
    events, floods = _read(b"\n".join(lines) + b"\n")
    assert [progress["done"] for progress in events] == list(range(1000))
    assert floods == 0


def test_a_flood_is_noted_once_and_read_to_its_end() -> None:
    events, floods = _read(b'{"stage": "a"}\n' * 200_000)
    assert floods == 1
    assert len(events) < 20_000


def test_gigabytes_without_an_end_of_line_are_a_flood_and_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_events, "_AT_ONCE", 50)
    events, floods = _read(b"x" * 30_000_000)
    assert (events, floods) == ([], 1)


def test_another_holder_of_the_pipe_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    events = WorkerEvents(os.fdopen(reading, "rb"), lambda: None)
    os.write(writing, b'{"stage": "a"}\n{"stage": "half')
    assert events.next(10) == {"stage": "a"}
    events.end(0.1)
    assert events.next(10) is None
    os.close(writing)


def _read(data: bytes) -> tuple[list[worker_events.Event], int]:
    """Send bytes through a pipe; return the events, and the number of detected floods."""
    reading, writing = os.pipe()
    floods: list[bool] = []
    events = WorkerEvents(os.fdopen(reading, "rb"), lambda: floods.append(True))

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(60)
    events.end(60)
    return list(iter(lambda: events.next(0), None)), len(floods)
