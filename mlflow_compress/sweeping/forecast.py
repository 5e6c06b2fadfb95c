"""How long measuring a variant will take, as far as anybody can know beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlflow_compress.budget import FEWEST_LAUNCHES
from mlflow_compress.records import Result, Run, Variant
from mlflow_compress.tracking.run_tags import SECONDS

_LONGEST_SECONDS = 366 * 86_400.0  # that anybody waited for a variant
_PROCESS_SECONDS = 30.0  # to start one, and to load or save a model

Source = Literal["this variant", "this model", "budget"]


@dataclass(frozen=True)
class Estimate:
    """How long a variant will take.

    Attributes:
        seconds: that long.
        source: where that is from: earlier results of `this variant`, of `this model` (the mean of its other rows), or
            the `budget`: at most about that long, but for compressing and scoring.
    """

    seconds: float
    source: Source


class Forecast:
    """Knows how long variants took, and estimates from it how long others will.

    Args:
        runs: earlier results, the newest first.
        machine: what is to be measured on, as `environment.machine` describes it: results of another kind of CPU do
            not count. None: all count.
    """

    def __init__(self, runs: Iterable[Run] = (), machine: Mapping[str, str] | None = None) -> None:
        self._known: dict[str, dict[tuple[str, str, str], float]] = {}  # seconds, by model and row
        for run in reversed(list(runs)):
            tags = run.tags
            is_alike = machine is None or tags.get("compress.env.cpu_model") == machine.get("cpu_model")
            if is_alike and tags.get("status") == "ok" and (took := _number(tags.get(SECONDS, ""))):
                row = (run.said("method"), tags.get("compress.batch_size") or "1", tags.get("compress.setting", ""))
                self._known.setdefault(run.said("model"), {})[row] = took

    def learn(self, result: Result) -> None:
        """Take note of how long a variant took. What failed or was skipped teaches nothing."""
        if result.status == "ok":
            self._known.setdefault(result.variant.model, {})[_row(result.variant)] = result.ended_s - result.started_s

    def of(self, variant: Variant) -> Estimate:
        """Estimate how long a variant takes."""
        rows = self._known.get(variant.model)
        if not rows:
            return Estimate(_bound(variant), "budget")
        if (took := rows.get(_row(variant))) is not None:
            return Estimate(took, "this variant")
        return Estimate(sum(rows.values()) / len(rows), "this model")


def _row(variant: Variant) -> tuple[str, str, str]:
    return variant.method, str(variant.batch_size), variant.setting


def _bound(variant: Variant) -> float:
    """Return how long measuring may take at most, but for compressing and scoring, which nobody knows."""
    budget, sides = variant.budget, 2 if variant.interleave and not variant.is_original else 1
    further = budget.launches - 1 if budget.launches >= FEWEST_LAUNCHES else 0
    restoring = min(further * _PROCESS_SECONDS, budget.restoring_seconds(budget.max_seconds))  # both of a pair at once
    warmup = budget.warmup_max_seconds * (1 + further / budget.launches)
    on_device = _PROCESS_SECONDS + restoring + sides * (warmup + budget.max_seconds) + budget.energy_seconds
    return sides * _PROCESS_SECONDS + len(variant.devices) * on_device


def _number(text: str) -> float:
    """Read how long a run says it took; 0 where a tag that somebody wrote is none of that."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < _LONGEST_SECONDS else 0.0
