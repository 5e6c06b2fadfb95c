"""Show what a sweep would do: `compress-bench sweep --dry-run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlflow_compress.plain_text import plain
from mlflow_compress.planning import requirements
from mlflow_compress.planning.durations import words
from mlflow_compress.planning.order import Queue
from mlflow_compress.records import Variant
from mlflow_compress.sweeping.forecast import Estimate, Forecast

State = Literal["to measure", "measured already", "skipped", "not started"]

_ABOUT = {"this variant": "", "this model": "about ", "budget": "at most "}
_RIGHT = ("", "batch", "threads")  # columns of numbers


@dataclass(frozen=True)
class Planned:
    """A variant of a planned sweep.

    Attributes:
        variant: The variant.
        estimate: Estimated duration of the measurement.
        state: What would happen to it; `not started`: it does not fit into the time limit.
        reason: Why it would be skipped.
    """

    variant: Variant
    estimate: Estimate
    state: State
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Return the seconds that it would take on a machine."""
        return self.estimate.seconds if self.state == "to measure" else 0.0


def look(
    variants: Sequence[Variant],
    forecast: Forecast,
    *,
    is_measured: Callable[[Variant], bool] = lambda variant: False,
    unmet: Callable[[Variant], str] = lambda variant: "",
    limit: float | None = None,
) -> list[Planned]:
    """Return what one machine would do with each variant.

    Args:
        variants: Variants in their order.
        forecast: Estimates their durations.
        is_measured: Returns whether the experiment already has a variant.
        unmet: Returns why no machine can measure a variant; empty if one can.
        limit: Seconds for all; None for no limit.
    """
    planned = []
    for variant in variants:
        reason = unmet(variant)
        state: State = "measured already" if is_measured(variant) else "skipped" if reason else "to measure"
        planned.append(Planned(variant, forecast.of(variant), state, reason if state == "skipped" else ""))
    if limit is None:
        return planned
    seconds = {id(plan.variant): plan.seconds for plan in planned}
    elapsed = 0.0
    queue = Queue(variants, lambda variant: seconds[id(variant)], limit, lambda: elapsed)
    while (next_variant := queue.take()) is not None:
        elapsed += seconds[id(next_variant)]
    left = {id(variant) for variant in queue.waiting}
    return [
        Planned(plan.variant, plan.estimate, "not started") if id(plan.variant) in left else plan for plan in planned
    ]


def text(planned: Sequence[Planned]) -> Iterator[str]:
    """Yield a plan as the lines of a table for a terminal."""
    rows = [_cells(number, plan) for number, plan in enumerate(planned, 1)]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    for row in ({name: name for name in columns}, *rows):
        cells = (row[name].rjust(widths[name]) if name in _RIGHT else row[name].ljust(widths[name]) for name in columns)
        yield "  ".join(cells).rstrip()


def summary(planned: Sequence[Planned], limit: float | None = None) -> str:
    """Return one line about the size and duration of a plan.

    Args:
        planned: Plan that `look` returned.
        limit: The limit in seconds given to `look`.
    """
    counts = [f"{len(planned)} variant{'s' if len(planned) != 1 else ''}"]
    states = Counter(plan.state for plan in planned)
    counts += [f"{states[state]} {state}" for state in ("measured already", "skipped") if states[state]]
    total = sum(plan.seconds for plan in planned)
    bounds = sum(plan.seconds for plan in planned if plan.estimate.source == "budget")
    line = f"{', '.join(counts)}, {'at most about' if bounds else 'about'} {words(total)} on one machine"
    if bounds:
        part = "" if bounds == total else f"{words(bounds)} of it "
        line += f" ({part}from the budget, without compressing and scoring)"
    if limit is not None:
        line += f"; {states['not started']} do not fit into {words(limit)}"
    return line


def data(planned: Sequence[Planned]) -> dict[str, Any]:
    """Return a plan as JSON data."""
    return {
        "variants": [
            {
                "number": number,
                "model": plan.variant.model,
                "method": plan.variant.method,
                "batch_size": plan.variant.batch_size,
                "threads": plan.variant.threads,
                "setting": plan.variant.setting,
                "requires": dict(plan.variant.requires),
                "seconds": plan.estimate.seconds,
                "source": plan.estimate.source,
                "state": plan.state,
                "reason": plan.reason,
            }
            for number, plan in enumerate(planned, 1)
        ],
        "measured": sum(plan.state == "measured already" for plan in planned),
        "seconds": sum(plan.seconds for plan in planned),
    }


def _cells(number: int, planned: Planned) -> dict[str, str]:
    variant, estimate = planned.variant, planned.estimate
    options = [part for part in variant.setting.split(", ") if not part.startswith("threads=")]
    is_open = planned.state in ("to measure", "not started")
    cells = {
        "": str(number),
        "model": variant.model,
        "method": variant.method,
        "batch": str(variant.batch_size),
        "threads": str(variant.threads or "auto"),
        "options": ", ".join(options),
        "requires": requirements.text(variant.requires),
        "estimate": f"{_ABOUT[estimate.source]}{words(estimate.seconds)}" if is_open else "",
        "from": estimate.source if is_open else "",
        "state": f"{planned.state}: {planned.reason}" if planned.reason else planned.state,
    }
    return {name: plain(cell) for name, cell in cells.items()}
