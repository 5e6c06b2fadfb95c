"""Record the memory of a process over time while it is measured.

Covers: resident memory of one process, sampled from outside, ten times a second at first and less often later.
Does not cover: peaks between two samples: these are in the kernel's mark (see `memory`), not here.
"""

from __future__ import annotations

import contextlib
import time

from mlflow_compress.meters.watcher import Watcher

_MIB = 2**20
_FIRST_INTERVAL_SECONDS = 0.1
_MOST_POINTS = 1000


class Timeline(Watcher):
    """Samples a process while the `with` block runs.

    Args:
        pid: Id of the process.

    Attributes:
        seconds: Time of each sample, since the block began.
        mib: Resident memory at each sample, MiB.
    """

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.mib: list[float] = []
        self._pid = pid

    def samples(self, group: str) -> dict[str, list[float]]:
        """Return the series by name."""
        return {f"{group}/ram_timeline_s": self.seconds, f"{group}/ram_timeline_mib": self.mib}

    def _watch(self) -> None:
        import psutil

        started, interval = time.monotonic(), _FIRST_INTERVAL_SECONDS
        with contextlib.suppress(psutil.Error):  # it ended
            process = psutil.Process(self._pid)
            while not self._over.wait(interval):
                self.mib.append(process.memory_info().rss / _MIB)
                self.seconds.append(time.monotonic() - started)
                if len(self.mib) >= _MOST_POINTS:  # halve the resolution
                    del self.seconds[1::2], self.mib[1::2]
                    interval *= 2
