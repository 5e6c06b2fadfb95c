"""`WorkerEvents`: what a worker tells of its progress, read line by line, and bounded: the worker runs others' code.

An honest worker tells at most four events a second and a few at each stage, each of some hundred bytes.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

Event = Mapping[str, Any]

_CHUNK_BYTES = 64 * 2**10
_LINE_BYTES = 16 * 2**10  # of the longest event
_USUAL_BYTES = 512  # of an event: what is longer counts as several, so that a flood is one on a slow machine too
_AT_ONCE, _EACH_SECOND = 10_000, 100  # lines that are read: more than so is a flood
_STAGE_CHARACTERS, _WARNING_CHARACTERS = 200, 2000
_TURN = ("count", "seconds", "call_ms")
_MOST = 2**53  # of a count or of seconds


class WorkerEvents:
    """Reads the pipe of a worker's events in a thread, which waits while nothing is told.

    Args:
        pipe: what the worker's events come out of. It is closed here.
        flooded: called once, when there are more events than any measurement tells.
    """

    def __init__(self, pipe: IO[bytes], flooded: Callable[[], None]) -> None:
        self._pipe, self._flooded = pipe, flooded
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lines, self._started = 0, time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> Event | None:
        """Return the next event; None at the end, and where there is none for so many seconds."""
        try:
            return self._events.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def end(self, seconds: float) -> None:
        """Let the events end after those that are there. Whoever holds the pipe is waited for so long at most."""
        self._thread.join(seconds)
        self._events.put(None)

    def _read(self) -> None:
        rest, is_flood = b"", False
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), _CHUNK_BYTES):
                if is_flood:
                    continue  # whoever writes is being ended, and must not block until then
                *lines, rest = (rest + chunk).split(b"\n")
                self._lines += max(len(lines) + (len(rest) > _LINE_BYTES), len(chunk) // _USUAL_BYTES)
                rest = rest[: _LINE_BYTES + 1]  # what is longer is no event
                is_flood = self._lines > _AT_ONCE + _EACH_SECOND * (time.monotonic() - self._started)
                if is_flood:
                    self._flooded()
                for told in filter(None, map(event, () if is_flood else lines)):
                    self._events.put(told)


def event(line: bytes) -> Event:
    """Return what a line tells; empty where it tells nothing: cut off by the worker's death, or no event.

    Returns:
        `stage` and `warning` are texts; `done`, `total`, `seconds_left`, and `count`, `seconds` and `call_ms` of `turn`
        are numbers from 0.
    """
    try:
        told = json.loads(line) if len(line) <= _LINE_BYTES else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    texts = {"stage": _STAGE_CHARACTERS, "warning": _WARNING_CHARACTERS}
    known: dict[str, Any] = {name: told[name][:most] for name, most in texts.items() if isinstance(told.get(name), str)}
    known |= {name: told[name] for name in ("done", "total", "seconds_left") if _is_number(told.get(name))}
    turn = told.get("turn")
    if isinstance(turn, dict) and all(_is_number(turn.get(name)) for name in _TURN):
        known["turn"] = {name: turn[name] for name in _TURN}
    return known


def _is_number(value: object) -> bool:
    """Return whether a value is a number from 0 that can be shown: no NaN, and of no thousand digits."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST
