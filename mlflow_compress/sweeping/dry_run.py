"""What a sweep would do: `compress-bench sweep --dry-run`."""

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
    """A variant of a sweep that was not begun.

    Attributes:
        variant: it.
        estimate: how long measuring it takes.
        state: what would come of it; `not started`: it does not fit into the time.
        reason: why it would be skipped.
    """

    variant: Variant
    estimate: Estimate
    state: State
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Say how long it would keep a machine busy."""
        return self.estimate.seconds if self.state == "to measure" else 0.0


def look(
    variants: Sequence[Variant],
    forecast: Forecast,
    *,
    is_measured: Callable[[Variant], bool] = lambda variant: False,
    unmet: Callable[[Variant], str] = lambda variant: "",
    limit: float | None = None,
) -> list[Planned]:
    """Say what one machine would do with each variant.

    Args:
        variants: in their order.
        forecast: what is known of how long they take.
        is_measured: whether the experiment has a variant.
        unmet: says why no machine serves a variant; empty where one does.
        limit: seconds for all; None for no limit.
    """
    planned = []
    for variant in variants:
        reason = unmet(variant)
        state: State = "measured already" if is_measured(variant) else "skipped" if reason else "to measure"
        planned.append(Planned(variant, forecast.of(variant), state, reason if state == "skipped" else ""))
    if limit is None:
        return planned
    seconds = {id(each.variant): each.seconds for each in planned}
    passed = 0.0
    queue = Queue(variants, lambda variant: seconds[id(variant)], limit, lambda: passed)
    while (taken := queue.take()) is not None:
        passed += seconds[id(taken)]
    left = {id(variant) for variant in queue.waiting}
    return [
        Planned(each.variant, each.estimate, "not started") if id(each.variant) in left else each for each in planned
    ]


def text(planned: Sequence[Planned]) -> Iterator[str]:
    """Write a plan as a table for a terminal."""
    rows = [_cells(number, each) for number, each in enumerate(planned, 1)]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in shown}
    for row in ({name: name for name in shown}, *rows):
        cells = (row[name].rjust(widths[name]) if name in _RIGHT else row[name].ljust(widths[name]) for name in shown)
        yield "  ".join(cells).rstrip()


def summary(planned: Sequence[Planned], limit: float | None = None) -> str:
    """Write on one line how large a plan is, and how long it takes.

    Args:
        planned: as `look` gives it.
        limit: the seconds that `look` was given.
    """
    counts = [f"{len(planned)} variant{'s' if len(planned) != 1 else ''}"]
    states = Counter(each.state for each in planned)
    counts += [f"{states[state]} {state}" for state in ("measured already", "skipped") if states[state]]
    whole = sum(each.seconds for each in planned)
    bounds = sum(each.seconds for each in planned if each.estimate.source == "budget")
    told = f"{', '.join(counts)}, {'at most about' if bounds else 'about'} {words(whole)} on one machine"
    if bounds:
        part = "" if bounds == whole else f"{words(bounds)} of it "
        told += f" ({part}as the budget allows, without compressing and scoring)"
    if limit is not None:
        told += f"; {states['not started']} do not fit into {words(limit)}"
    return told


def data(planned: Sequence[Planned]) -> dict[str, Any]:
    """Return a plan as data for JSON."""
    return {
        "variants": [
            {
                "number": number,
                "model": each.variant.model,
                "method": each.variant.method,
                "batch_size": each.variant.batch_size,
                "threads": each.variant.threads,
                "setting": each.variant.setting,
                "requires": dict(each.variant.requires),
                "seconds": each.estimate.seconds,
                "source": each.estimate.source,
                "state": each.state,
                "reason": each.reason,
            }
            for number, each in enumerate(planned, 1)
        ],
        "measured": sum(each.state == "measured already" for each in planned),
        "seconds": sum(each.seconds for each in planned),
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
