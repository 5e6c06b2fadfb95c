"""Slow down each timed call of a variant whose folder has a file `slowed` with the share: see `false_alarms`.

The worker runs in the variant's folder, and imports this module when Python starts. After the call's own work a loop
keeps the core busy; like a slower model, it never sleeps.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SHARE = Path("slowed")


def _slow_down(share: float) -> None:
    from mlflow_compress.meters import latency

    clock, plain = time.perf_counter_ns, latency._Wall.time

    def slower(self: latency._Wall, call: Callable[[Any], object]) -> Any:
        def longer(mark: Any) -> None:
            start = clock()
            call(mark)
            end = clock() + (clock() - start) * share
            while clock() < end:
                pass

        return plain(self, longer)

    latency._Wall.time = slower  # type: ignore[method-assign]


if _SHARE.is_file():
    _slow_down(float(_SHARE.read_text(encoding="utf-8")))
