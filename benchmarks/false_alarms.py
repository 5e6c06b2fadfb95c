"""How often equal models are called different, and how often a real slow-down of 5 % is seen.

The same saved original stands for the variant and for the original (A/A), many times for each model:

* in turns, as a sweep measures: several pairs of fresh processes, one ratio each;
* apart, as two runs do: launches of each by itself, compared by Welch's t.

The claim is the one of the table: different where the 95 % interval of the ratio does not hold 1. (A table corrects for
many rows on top of that, which can only claim less.) For the power all calls of the variant are taken 5 % longer, which
is what a slow-down of every call does to its launches' medians; the noise is that of the real calls.

A goal is met where at most 8 % of all A/A comparisons are called different. `COMPRESS_PAIRS` and `COMPRESS_MODELS` ask
for fewer comparisons and models than the 40 and three of a whole run: 8 of one model take a quarter of an hour.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.children import plan, prepare
from benchmarks.finding import Cell, Finding
from mlflow_compress.budget import FEWEST_LAUNCHES
from mlflow_compress.measuring import interleave, launches
from mlflow_compress.measuring.interleave import Side
from mlflow_compress.measuring.worker import VARIANT
from mlflow_compress.meters.latency import parts
from mlflow_compress.percentiles import (
    difference_interval,
    error_of_launches,
    interval,
    percentile,
    ratio_error,
)
from mlflow_compress.records import Budget, Part, write_json

_MOST_FALSE = 0.08
_SLOWER = 1.05
_COMPARISONS, _QUICK_COMPARISONS = 40, 2
_MODELS = ("digits_cnn", "distilbert", "yolo11n")
_BUDGET = Budget(energy_seconds=0)
_QUICK_BUDGET = Budget(min_seconds=0.5, max_seconds=3, energy_seconds=0, launches=3)
_Bounds = tuple[float, float]  # of a ratio


def find(quick: bool) -> Finding:
    """Compare each model with itself, again and again."""
    models = tuple(filter(None, os.environ.get("COMPRESS_MODELS", "").split(","))) or _MODELS
    count = int(os.environ.get("COMPRESS_PAIRS") or (_QUICK_COMPARISONS if quick else _COMPARISONS))
    rows = [row for model in models[: 1 if quick else None] for row in _rows(model, count, quick)]
    return Finding(
        name="false_alarms",
        goal=f"of comparisons of a model with itself at most {_MOST_FALSE:.0%} claim a difference, in turns and apart.",
        met=all(_is_seldom(row["false alarms"]) for row in rows if row["judged by"] != _CALLS),
        rows=rows,
        notes=[
            f"power: how often a difference is claimed of calls that take {_SLOWER - 1:.0%} longer",
            f"{_CALLS}: what the calls of one launch of each say, as all did before there were several",
        ],
    )


_TURNS, _APART, _CALLS = "turns", "launches apart", "calls of one launch"


def _is_seldom(share: Cell) -> bool:
    return isinstance(share, float) and share <= _MOST_FALSE


def _rows(model: str, count: int, quick: bool) -> list[dict[str, Cell]]:
    """Compare a model with itself so many times, and judge each comparison in each way."""
    found: dict[str, list[_Bounds | None]] = {_TURNS: [], _APART: [], _CALLS: []}
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name in ("own", "base"):
            place = Path(folder, name)
            place.mkdir()
            variant = dataclasses.replace(
                plan(model, 6), budget=_QUICK_BUDGET if quick else _BUDGET, threads=1, interleave=True
            )
            write_json(place / VARIANT, variant)
            prepare(variant, place)
            sides.append(Side(variant, place))
        for _ in range(count):
            found[_TURNS].append(_of_turns(interleave.alternate(sides[0], sides[1], "cpu", False, _silent)))
            own, base = (_alone(side) for side in sides)
            found[_APART].append(_of_launches(own, base))
            found[_CALLS].append(_of_calls(own, base))
    return [{"model": model, "judged by": way, **_shares(bounds)} for way, bounds in found.items()]


def _shares(every: Sequence[_Bounds | None]) -> dict[str, Cell]:
    """Return how often a difference is claimed; a comparison without an interval claims none."""
    known = [bounds for bounds in every if bounds is not None]
    false = [not low <= 1 <= high for low, high in known]
    true = [not low * _SLOWER <= 1 <= high * _SLOWER for low, high in known]
    widths = [math.sqrt(high / low) - 1 for low, high in known]
    return {
        "comparisons": len(every),
        "with an interval": len(known),
        "false alarms": sum(false) / len(every),
        "power at 5 %": sum(true) / len(every),
        "half width, median": statistics.median(widths) if widths else None,
    }


def _alone(side: Side) -> Part:
    variant = dataclasses.replace(side.variant, interleave=False)
    return launches.measure(variant, side.folder, "cpu", False, _silent)


def _silent(event: Mapping[str, object]) -> None:
    """Take no notice."""


def _of_turns(part: Part) -> _Bounds | None:
    low, high = (part.measurements.get(f"cpu/latency_ratio_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def _of_launches(own: Part, base: Part) -> _Bounds | None:
    numbers = own.measurements, base.measurements
    if min(each.get("cpu/launches", 0) for each in numbers) < FEWEST_LAUNCHES:
        return None
    errors = [error_of_launches(each["cpu/latency_launch_sd"], round(each["cpu/launches"])) for each in numbers]
    ratio = numbers[0]["cpu/latency_p50_ms"] / numbers[1]["cpu/latency_p50_ms"]
    low, high = ratio_error(*errors).interval(ratio)
    return low, high


def _of_calls(own: Part, base: Part) -> _Bounds | None:
    logs = [[math.log(ms) for ms in _first_launch(part)] for part in (own, base)]
    ends = [interval(each, 50) for each in logs]
    if ends[0] is None or ends[1] is None:
        return None
    low, high = difference_interval(percentile(logs[0], 50), ends[0], percentile(logs[1], 50), ends[1])
    return math.exp(low), math.exp(high)


def _first_launch(part: Part) -> Sequence[float]:
    wall = part.samples["cpu/latency_ms"]
    return parts(wall, part.samples.get("cpu/launch_sizes", [len(wall)]))[0]
