"""What applying the methods itself takes: time and memory of the process that compresses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from mlflow_compress.meters.memory import MemoryMeter

_BEFORE, _STEP = "before", "step"


class CompressionCost:
    """Measures the steps of a chain of methods; loading the original, checking and saving are left out."""

    def __init__(self) -> None:
        self._meter = MemoryMeter()
        self._seconds = 0.0
        self._peak_mib = 0.0

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Measure one step."""
        self._meter.end_phase(_BEFORE)
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started
        self._meter.end_phase(_STEP)
        self._peak_mib = max(self._peak_mib, self._meter.peaks_mib[_STEP])

    def numbers(self) -> dict[str, float]:
        """Return the seconds of all steps, and the highest resident memory in MiB, with the loaded original."""
        return {"prepare/seconds": self._seconds, "prepare/ram_peak_mib": self._peak_mib}
