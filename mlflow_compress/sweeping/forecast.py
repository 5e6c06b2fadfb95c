"""Estimate how long measuring a variant will take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlflow_compress.budget import FEWEST_LAUNCHES
from mlflow_compress.records import Result, Run, Variant
from mlflow_compress.tracking.run_tags import SECONDS

_LONGEST_SECONDS = 366 * 86_400.0  # a plausible limit for one variant
_PROCESS_SECONDS = 30.0  # to start a process, and to load or save a model

Source = Literal["this variant", "this model", "budget"]


@dataclass(frozen=True)
class Estimate:
    """The estimated duration of a variant.

    Attributes:
        seconds: The estimate.
        source: Its source: earlier results of `this variant`, of `this model` (the mean of its other rows), or the
            `budget`: an upper bound without compressing and scoring.
    """

    seconds: float
    source: Source


class Forecast:
    """Estimates durations from earlier durations.

    Args:
        runs: Earlier results, the newest first.
        machine: Machine to measure on, as `environment.machine` describes it: results of another kind of CPU are
            ignored. None: all are used.
    """

    def __init__(self, runs: Iterable[Run] = (), machine: Mapping[str, str] | None = None) -> None:
        self._known: dict[str, dict[tuple[str, str, str], float]] = {}  # seconds, by model and row
        for run in reversed(list(runs)):
            tags = run.tags
            is_alike = machine is None or tags.get("compress.env.cpu_model") == machine.get("cpu_model")
            if is_alike and tags.get("status") == "ok" and (seconds := _number(tags.get(SECONDS, ""))):
                row = (run.said("method"), tags.get("compress.batch_size") or "1", tags.get("compress.setting", ""))
                self._known.setdefault(run.said("model"), {})[row] = seconds

    def learn(self, result: Result) -> None:
        """Record the duration of a variant. Failed and skipped ones are ignored."""
        if result.status == "ok":
            self._known.setdefault(result.variant.model, {})[_row(result.variant)] = result.ended_s - result.started_s

    def of(self, variant: Variant) -> Estimate:
        """Estimate how long a variant takes."""
        rows = self._known.get(variant.model)
        if not rows:
            return Estimate(_bound(variant), "budget")
        if (seconds := rows.get(_row(variant))) is not None:
            return Estimate(seconds, "this variant")
        return Estimate(sum(rows.values()) / len(rows), "this model")


def _row(variant: Variant) -> tuple[str, str, str]:
    return variant.method, str(variant.batch_size), variant.setting


def _bound(variant: Variant) -> float:
    """Return an upper bound for measuring, without compressing and scoring, whose durations are unknown."""
    budget, sides = variant.budget, 2 if variant.interleave and not variant.is_original else 1
    further_launches = budget.launches - 1 if budget.launches >= FEWEST_LAUNCHES else 0
    restoring = min(
        further_launches * _PROCESS_SECONDS, budget.restoring_seconds(budget.max_seconds)
    )  # both of a pair at once
    warmup = budget.warmup_max_seconds * (1 + further_launches / budget.launches)
    on_device = _PROCESS_SECONDS + restoring + sides * (warmup + budget.max_seconds) + budget.energy_seconds
    return sides * _PROCESS_SECONDS + len(variant.devices) * on_device


def _number(text: str) -> float:
    """Return the duration in a tag; 0 if it is not a plausible number: anybody can write a tag."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < _LONGEST_SECONDS else 0.0
