"""`Budget`: how long a measurement goes on. Apart from the other records, since every `--help` shows its defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """How long one latency measurement goes on.

    Measuring stops when both `min_iterations` and `min_seconds` are reached, or at `max_seconds` with at least
    `fewest_iterations`. Warm-up stops when the latency is stable, at `warmup_max_seconds` at the latest. Energy is
    measured over a window of its own, of `energy_seconds`; 0 leaves it out. Scoring stops after `score_seconds` with
    the samples that were reached.
    """

    min_iterations: int = 50
    min_seconds: float = 3.0
    max_seconds: float = 60.0
    fewest_iterations: int = 6  # fewer give the median no confidence interval
    warmup_max_seconds: float = 20.0
    energy_seconds: float = 5.0
    score_seconds: float = 1800.0
    timeout_seconds: float = 3600.0
