"""`Budget`: how long a measurement takes. It is separate from the other records because `--help` shows its defaults."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

FEWEST_LAUNCHES = 3  # fewer launches give no interval
_FEWEST_IN_LAUNCH = 3  # calls, so that one outlier does not move the median
_RESTORING_SHARE = 10  # times `min_seconds`, for further launches to get ready
_WARMUP_SECONDS, _WARMUP_SHARE = 0.5, 1 / 6  # until clocks and allocators settle; at most this share of `min_seconds`


@dataclass(frozen=True)
class Budget:
    """How long one latency measurement takes.

    Measuring stops when both `min_iterations` and `min_seconds` are reached, or at `max_seconds` with at least
    `fewest_iterations`. Warm-up stops when the latency is stable, at the latest after `warmup_max_seconds`. Energy is
    measured in a separate window of `energy_seconds`; 0 skips it. Scoring stops after `score_seconds`, with the samples
    scored so far. The timed calls are split among at most `launches` fresh processes.
    """

    min_iterations: int = 50
    min_seconds: float = 3.0
    max_seconds: float = 60.0
    fewest_iterations: int = 6  # with fewer, the median has no confidence interval
    warmup_max_seconds: float = 20.0
    energy_seconds: float = 5.0
    score_seconds: float = 1800.0
    timeout_seconds: float = 3600.0
    launches: int = 5

    @property
    def warmup_min_seconds(self) -> float:
        """The minimum seconds of a warm-up, however stable the latency is; less if the budget is tiny."""
        return min(_WARMUP_SECONDS, _WARMUP_SHARE * self.min_seconds, self.warmup_max_seconds)

    def launches_that_fit(self, restoring_s: float, call_s: float) -> int:
        """Return the number of launches to split the calls among: at least 3, or 1.

        Args:
            restoring_s: Seconds from the start of a process to the end of its first call.
            call_s: Seconds of one call.
        """
        wanted_s = max(self.min_iterations * call_s, self.min_seconds)
        timing_s = min(wanted_s, max(self.max_seconds, self.fewest_iterations * call_s))
        further = math.floor(min(self.launches - 1, self.restoring_seconds(timing_s) / max(restoring_s, 1e-3)))
        return 1 + further if 1 + further >= FEWEST_LAUNCHES else 1

    def restoring_seconds(self, timing_s: float) -> float:
        """Return the total seconds that all further launches may take to get ready.

        This is ten times `min_seconds`, or the duration of the timing if that is longer.

        Args:
            timing_s: Seconds of the timed calls.
        """
        return max(_RESTORING_SHARE * self.min_seconds, timing_s)

    def share(self, launches: int) -> Budget:
        """Return one launch's share of the calls and of their seconds."""
        if launches == 1:
            return self
        return dataclasses.replace(
            self,
            min_iterations=max(_FEWEST_IN_LAUNCH, math.ceil(self.min_iterations / launches)),
            min_seconds=self.min_seconds / launches,
            max_seconds=self.max_seconds / launches,
            fewest_iterations=max(_FEWEST_IN_LAUNCH, math.ceil(self.fewest_iterations / launches)),
        )
