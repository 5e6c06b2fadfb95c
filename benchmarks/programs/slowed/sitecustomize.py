"""Makes each timed call of a variant longer, where its folder has a file `slowed` with the share: see `false_alarms`.

The worker runs in the variant's folder, and imports this when Python starts. After the call's own work a loop keeps the
core busy; it sleeps never, as a slower model would not.
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
