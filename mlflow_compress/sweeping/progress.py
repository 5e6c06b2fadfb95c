"""Show the progress and the remaining time on standard error: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from mlflow_compress import terminal
from mlflow_compress.plain_text import plain
from mlflow_compress.records import Result

_BAR_WIDTH = 24
PATIENCE_SECONDS = 2.0  # for a command that usually takes no time
_LOG_SECONDS = 10.0  # between two lines about the same stage, if the stream is not a terminal


class Progress:
    """Shows the progress of one variant after the other.

    Args:
        stream: Stream to write to.
        quiet: Write only how variants end.
        patience: Seconds from the beginning in which events are not shown: fast commands show no progress.
    """

    def __init__(self, stream: TextIO, quiet: bool = False, patience: float = 0.0) -> None:
        self._stream = stream
        self._quiet = quiet
        self._patience = patience
        self._begun = time.monotonic()
        self._live = stream.isatty()
        self._title = ""
        self._stage = ""
        self._told = 0.0

    def begin(self, title: str) -> None:
        """Begin a variant."""
        self._title, self._stage = plain(title), ""
        self._begun = time.monotonic()

    def event(self, event: Mapping[str, Any]) -> None:
        """Show an event of the worker: `stage`, and if known `done`, `total`, `seconds_left`; or a `warning`."""
        if "warning" in event:
            self.end(f"WARNING: {event['warning']}")
            return
        if self._quiet or time.monotonic() - self._begun < self._patience:
            return
        stage = plain(str(event.get("stage", "")))
        new, self._stage = stage != self._stage, stage
        text = f"{self._title}: {stage}{_how_far(event)}"
        if self._live:
            terminal.write_over(self._stream, text)
        elif new or ("done" in event and time.monotonic() - self._told >= _LOG_SECONDS):
            terminal.write_line(self._stream, text)
            self._told = time.monotonic()

    def close(self) -> None:
        """Remove the bar."""
        if self._live and not self._quiet:
            terminal.clear_line(self._stream)

    def end(self, text: str) -> None:
        """Write a permanent line: how a variant ended, or a warning."""
        self.close()
        terminal.write_line(self._stream, f"{self._title}: {plain(text)}")


class Board:
    """Shows the progress of many variants on many machines: how many are done, which run where, and the time left.

    Several threads may use it.

    Args:
        stream: Stream to write to.
        quiet: Write only how variants end.
    """

    def __init__(self, stream: TextIO, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._live = stream.isatty()
        self._lock = threading.RLock()
        self._total = self._machines = self._done = 0
        self._counts = {"failed": 0, "skipped": 0}
        self._seconds: list[float] = []
        self._running: dict[str, str] = {}
        self._told = -_LOG_SECONDS

    def begin(self, total: int, machines: Sequence[str]) -> None:
        """Begin the sweep.

        Args:
            total: Number of variants.
            machines: Names of the machines that measure.
        """
        self._total, self._machines = total, len(machines)
        self.tell(f"{total} variants, {len(machines)} machines: {', '.join(machines)}")

    def event(self, machine: str, who: str, event: Mapping[str, Any]) -> None:
        """Show an event of a worker, see `Progress.event`.

        Args:
            machine: Name of the machine it runs on.
            who: The variant.
            event: The event.
        """
        if "warning" in event:
            self.tell(f"{who}: WARNING: {event['warning']}")
            return
        with self._lock:
            self._running[machine] = f"{who}: {event.get('stage', '')}{_how_far(event)}"
            self._show()

    def free(self, machine: str) -> None:
        """Record that nothing runs on a machine."""
        with self._lock:
            self._running.pop(machine, None)

    def done(self, result: Result) -> None:
        """Count a result."""
        with self._lock:
            self._done += 1
            if result.status in self._counts:
                self._counts[result.status] += 1
            else:
                self._seconds.append(result.ended_s - result.started_s)
            self._show()

    def tell(self, text: str) -> None:
        """Write a permanent line."""
        with self._lock:
            self.close()
            terminal.write_line(self._stream, plain(text))

    def close(self) -> None:
        """Remove the state line."""
        with self._lock:
            if self._live and not self._quiet:
                terminal.clear_line(self._stream)

    def line(self) -> str:
        """Return the state as one line."""
        parts = [f"{self._done}/{self._total} done"]
        parts += [f"{count} {status}" for status, count in self._counts.items() if count]
        left = self._total - self._done
        if self._seconds and left and self._machines:
            parts.append(f"about {_duration(sum(self._seconds) / len(self._seconds) * left / self._machines)} left")
        running = "; ".join(f"{machine}: {text}" for machine, text in sorted(self._running.items()))
        return plain(", ".join(parts) + (f" | {running}" if running else ""))

    def _show(self) -> None:
        if self._quiet:
            return
        if self._live:
            terminal.write_over(self._stream, self.line())
        elif time.monotonic() - self._told >= _LOG_SECONDS:
            terminal.write_line(self._stream, self.line())
            self._told = time.monotonic()


def _how_far(event: Mapping[str, Any]) -> str:
    done, total, left = event.get("done"), event.get("total"), event.get("seconds_left")
    if done is None:
        return ""
    if not total:
        return f" (warm-up, call {done})"
    filled = min(_BAR_WIDTH, round(_BAR_WIDTH * done / total))
    ending = f", {_duration(left)} left" if left is not None else ""
    return f" [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done}/{total}{ending}"


def _duration(seconds: float) -> str:
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} min {remainder} s" if minutes else f"{remainder} s"
