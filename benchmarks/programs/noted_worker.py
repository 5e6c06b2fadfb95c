"""The package's worker, which also notes when each phase of its memory meter ended.

`noted_worker.py NOTES measure FOLDER DEVICE` writes one line per phase: the time on the monotonic clock, which all
processes share, in seconds, and the phase's name.
"""

import sys
import time
from pathlib import Path

from mlflow_compress.measuring import worker
from mlflow_compress.meters import memory

_NOTES = Path(sys.argv.pop(1))


class NotedMeter(memory.MemoryMeter):
    """The meter, with notes."""

    def end_phase(self, name: str) -> None:
        """End a phase, and note when."""
        super().end_phase(name)
        with _NOTES.open("a", encoding="utf-8") as notes:
            notes.write(f"{time.monotonic()} {name}\n")


if __name__ == "__main__":
    memory.MemoryMeter = NotedMeter  # type: ignore[misc]
    worker.main()
