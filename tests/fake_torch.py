"""A fake torch with one accelerator, for tests of branches that need another machine. It runs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

MIB = 2**20


class FakeTorch:
    """Torch as it appears on a machine with one accelerator, with a clock that only advances in the device's work.

    Attributes:
        kind: Kind of the accelerator; empty for a machine without one.
        keeps_peaks: Whether torch keeps memory peaks for it.
        calls: What was called, in order.
    """

    def __init__(self, kind: str, keeps_peaks: bool = True) -> None:
        self.kind, self.keeps_peaks = kind, keeps_peaks
        self.calls: list[str] = []
        self.now_ms = 0.0
        self.queued_ms = 0.0
        self.accelerator = SimpleNamespace(
            current_accelerator=self._current,
            current_device_index=lambda: 0,
            synchronize=self._synchronise,
            max_memory_allocated=lambda: self._memory(3),
            max_memory_reserved=lambda: self._memory(4),
            reset_peak_memory_stats=lambda: self._memory(0),
            get_memory_info=lambda: (6 * MIB, 16 * MIB),
        )
        self.cuda = SimpleNamespace(is_available=lambda: kind == "cuda", is_initialized=lambda: False)
        self.mps = SimpleNamespace(
            driver_allocated_memory=lambda: 5 * MIB, recommended_max_memory=lambda: 12 * 1024 * MIB, Event=self.event
        )
        properties = SimpleNamespace(
            name="Intel(R) Arc(TM) B580 Graphics", total_memory=12 * 2**30, driver_version="1.6"
        )
        self.xpu = SimpleNamespace(get_device_properties=lambda index: properties, Event=self.event)

    def install(self, patch: pytest.MonkeyPatch) -> FakeTorch:
        patch.setitem(sys.modules, "torch", self)
        return self

    def get_device_module(self, device: str) -> Any:
        return getattr(self, device)

    def work(self, milliseconds: float) -> None:
        """Queue work, which the device does without the caller waiting."""
        self.queued_ms += milliseconds

    def event(self, enable_timing: bool) -> FakeEvent:
        assert enable_timing
        return FakeEvent(lambda: self.now_ms + self.queued_ms)

    def _current(self, check_available: bool = False) -> Any:
        assert check_available
        return SimpleNamespace(type=self.kind) if self.kind else None

    def _synchronise(self) -> None:
        self.calls.append("synchronise")
        self.now_ms, self.queued_ms = self.now_ms + self.queued_ms, 0.0

    def _memory(self, mib: int) -> int:
        if not self.keeps_peaks:
            raise RuntimeError(f"Allocator for {self.kind} is not a DeviceAllocator.")
        if mib == 0:
            self.calls.append("reset")
        return mib * MIB


class FakeEvent:
    """An event in the queue of a device: it takes the time when the work before it ends."""

    def __init__(self, end_ms: Callable[[], float]) -> None:
        self._end_ms = end_ms
        self.time_ms = 0.0

    def record(self) -> None:
        self.time_ms = self._end_ms()

    def elapsed_time(self, later: FakeEvent) -> float:
        return later.time_ms - self.time_ms
