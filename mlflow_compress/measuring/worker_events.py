"""`WorkerEvents`: read a worker's progress events line by line, with limits: the worker runs other people's code.

A normal worker sends at most four events a second and a few at each stage, each about a hundred bytes long.
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
_USUAL_BYTES = 512  # of an event; longer ones count as several, so that a flood is detected on a slow machine, too
_AT_ONCE, _EACH_SECOND = 10_000, 100  # lines that are read; more are a flood
_STAGE_CHARACTERS, _WARNING_CHARACTERS = 200, 2000
_TURN = ("count", "seconds", "call_ms")
_MOST = 2**53  # of a count or of seconds


class WorkerEvents:
    """Reads the pipe of a worker's events in a thread, which sleeps while there are none.

    Args:
        pipe: The worker's events. It is closed here.
        flooded: Called once, if there are more events than any measurement sends.
    """

    def __init__(self, pipe: IO[bytes], flooded: Callable[[], None]) -> None:
        self._pipe, self._flooded = pipe, flooded
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lines, self._started = 0, time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> Event | None:
        """Return the next event; None at the end, or if none comes within this number of seconds."""
        try:
            return self._events.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def end(self, seconds: float) -> None:
        """End the events after those that have arrived. Wait at most `seconds` for a process that has the pipe open."""
        self._thread.join(seconds)
        self._events.put(None)

    def _read(self) -> None:
        incomplete, is_flood = b"", False
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), _CHUNK_BYTES):
                if is_flood:
                    continue  # the writer is being ended, and must not block until then
                *lines, incomplete = (incomplete + chunk).split(b"\n")
                self._lines += max(len(lines) + (len(incomplete) > _LINE_BYTES), len(chunk) // _USUAL_BYTES)
                incomplete = incomplete[: _LINE_BYTES + 1]  # a longer line is not an event
                is_flood = self._lines > _AT_ONCE + _EACH_SECOND * (time.monotonic() - self._started)
                if is_flood:
                    self._flooded()
                for parsed in filter(None, map(event, () if is_flood else lines)):
                    self._events.put(parsed)


def event(line: bytes) -> Event:
    """Return the event in a line; empty if there is none, or if the worker's death cut the line off.

    Returns:
        `stage` and `warning` are texts; `done`, `total`, `seconds_left`, and `count`, `seconds` and `call_ms` of `turn`
        are numbers from 0.
    """
    try:
        data = json.loads(line) if len(line) <= _LINE_BYTES else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    texts = {"stage": _STAGE_CHARACTERS, "warning": _WARNING_CHARACTERS}
    valid: dict[str, Any] = {
        name: data[name][:max_length] for name, max_length in texts.items() if isinstance(data.get(name), str)
    }
    valid |= {name: data[name] for name in ("done", "total", "seconds_left") if _is_number(data.get(name))}
    turn = data.get("turn")
    if isinstance(turn, dict) and all(_is_number(turn.get(name)) for name in _TURN):
        valid["turn"] = {name: turn[name] for name in _TURN}
    return valid


def _is_number(value: object) -> bool:
    """Return whether a value is a number from 0 that can be shown: not NaN, and not thousands of digits long."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST
