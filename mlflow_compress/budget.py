"""`Budget`: how long a measurement goes on. Apart from the other records, since every `--help` shows its defaults."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

FEWEST_LAUNCHES = 3  # fewer support no interval
_FEWEST_IN_LAUNCH = 3  # calls, for a median that one outlier does not move
_RESTORING_SHARE = 10  # of `min_seconds`, that further launches may take to get ready
_WARMUP_SECONDS, _WARMUP_SHARE = 0.5, 1 / 6  # until clocks and allocators have settled; of `min_seconds` at most


@dataclass(frozen=True)
class Budget:
    """How long one latency measurement goes on.

    Measuring stops when both `min_iterations` and `min_seconds` are reached, or at `max_seconds` with at least
    `fewest_iterations`. Warm-up stops when the latency is stable, at `warmup_max_seconds` at the latest. Energy is
    measured over a window of its own, of `energy_seconds`; 0 leaves it out. Scoring stops after `score_seconds` with
    the samples that were reached. The timed calls are split among at most so many `launches`, each a fresh process.
    """

    min_iterations: int = 50
    min_seconds: float = 3.0
    max_seconds: float = 60.0
    fewest_iterations: int = 6  # fewer give the median no confidence interval
    warmup_max_seconds: float = 20.0
    energy_seconds: float = 5.0
    score_seconds: float = 1800.0
    timeout_seconds: float = 3600.0
    launches: int = 5

    @property
    def warmup_min_seconds(self) -> float:
        """The seconds that a warm-up takes at least, however stable the latency is: less where the budget is tiny."""
        return min(_WARMUP_SECONDS, _WARMUP_SHARE * self.min_seconds, self.warmup_max_seconds)

    def launches_that_fit(self, restoring_s: float, call_s: float) -> int:
        """Return among how many launches to split the calls: at least 3, or 1.

        Args:
            restoring_s: seconds from the start of a process to the end of its first call.
            call_s: seconds that one call takes.
        """
        wanted_s = max(self.min_iterations * call_s, self.min_seconds)
        timing_s = min(wanted_s, max(self.max_seconds, self.fewest_iterations * call_s))
        further = math.floor(min(self.launches - 1, self.restoring_seconds(timing_s) / max(restoring_s, 1e-3)))
        return 1 + further if 1 + further >= FEWEST_LAUNCHES else 1

    def restoring_seconds(self, timing_s: float) -> float:
        """Return the seconds that getting all further launches ready may take together.

        Ten times `min_seconds`, or as long as the timing itself where that is longer.

        Args:
            timing_s: seconds that the timed calls take.
        """
        return max(_RESTORING_SHARE * self.min_seconds, timing_s)

    def share(self, launches: int) -> Budget:
        """Return one launch's share of the calls and of the seconds that they may take."""
        if launches == 1:
            return self
        return dataclasses.replace(
            self,
            min_iterations=max(_FEWEST_IN_LAUNCH, math.ceil(self.min_iterations / launches)),
            min_seconds=self.min_seconds / launches,
            max_seconds=self.max_seconds / launches,
            fewest_iterations=max(_FEWEST_IN_LAUNCH, math.ceil(self.fewest_iterations / launches)),
        )
