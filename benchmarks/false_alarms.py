"""How often equal models are called different, and how often a slow-down of 5 % is seen.

The same saved original stands for the variant and for the original (A/A), many times for each model:

* in turns, as a sweep measures: several pairs of fresh processes, one ratio each. All comparisons are disjoint;
* apart, as two runs do: launches of each by itself, compared by Welch's t; a quarter as often. Each group of launches
  is compared with the one before it, so it stands in two comparisons: their share of false alarms is right, and a
  little less sure;
* by the calls of one launch of each group, as was done before there were several.

The claim is the one of the table: different where the 95 % interval of the ratio does not hold 1. (A table corrects for
many rows on top of that, which can only claim less.) A comparison without an interval, since only one launch fitted or
launches were lost, claims nothing, and is counted.

For the power the interval is moved by 5 %: a slow-down of every call multiplies each launch's median, and so the ratio,
by 1.05, and leaves its logarithm's spread as it is. With `COMPRESS_PLANTED=1` comparisons in turns are made once more
with a variant that is slower in fact: inside each timed call of it a loop keeps the core busy for 5 % of the time that
the call took (`programs/slowed/sitecustomize.py`). That takes as long as the comparisons in turns do.

A goal is met where at most 8 % of the comparisons are called different. The budget is the default, less the energy.
Each comparison is kept in `results/false_alarms.jsonl` at once, and those of the same machine and versions count: stop
it whenever you like, and it goes on. `COMPRESS_PAIRS` and `COMPRESS_MODELS` ask for fewer than 40 comparisons, and for
other models.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import PROGRAMS, plan, prepare
from benchmarks.finding import RESULTS, Cell, Finding
from mlflow_compress.budget import FEWEST_LAUNCHES
from mlflow_compress.measuring import interleave, launches
from mlflow_compress.measuring.interleave import Side
from mlflow_compress.meters.environment import machine
from mlflow_compress.meters.latency import parts
from mlflow_compress.percentiles import difference_interval, error_of_launches, interval, percentile, ratio_error
from mlflow_compress.records import Budget, Part

_MOST_FALSE = 0.08
_SLOWER = 1.05
_COMPARISONS, _QUICK_COMPARISONS = 40, 1
_MODELS = ("digits_cnn", "distilbert", "yolo11n")
_APART_SHARE = 4  # one group of launches for so many comparisons in turns: a process at a time takes twice as long
_BUDGET = Budget(energy_seconds=0)
_KEPT = RESULTS / "false_alarms.jsonl"
_SLOWED = "slowed"  # programs, and the file in a variant's folder that slows it down
_TURNS, _PLANTED, _APART, _CALLS = "turns", "turns, 5 % planted", "launches apart", "calls of one launch"

_Bounds = tuple[float, float]  # of a ratio


@dataclass(frozen=True)
class Comparison:
    """One comparison of a model with itself.

    Attributes:
        model: which.
        way: how it was judged.
        bounds: the ends of the ratio's 95 % interval; None where none is known.
    """

    model: str
    way: str
    bounds: _Bounds | None


def find(quick: bool) -> Finding:
    """Compare each model with itself, again and again."""
    models = tuple(filter(None, os.environ.get("COMPRESS_MODELS", "").split(","))) or _MODELS
    count = int(os.environ.get("COMPRESS_PAIRS") or (_QUICK_COMPARISONS if quick else _COMPARISONS))
    apart = math.ceil(count / _APART_SHARE)
    wanted = {_TURNS: count, _APART: apart, _CALLS: apart}
    if os.environ.get("COMPRESS_PLANTED"):
        wanted[_PLANTED] = count
    with tempfile.TemporaryDirectory() as unkept:
        kept = Path(unkept, _KEPT.name) if quick else _KEPT
        here = {key: machine().get(key, "") for key in ("cpu_model", "cores_logical", "torch", "version")}
        rows = []
        for model in models[: 1 if quick else None]:
            done = [each for each in _read(kept, here) if each.model == model]
            missing = {way: number - sum(each.way == way for each in done) for way, number in wanted.items()}
            if any(left > 0 for left in missing.values()):
                for each in _compare(model, missing):
                    _keep(kept, here, each)
                    done.append(each)
            rows += [_row(model, way, [each.bounds for each in done if each.way == way]) for way in wanted]
    return Finding(
        name="false_alarms",
        goal=f"of comparisons of a model with itself at most {_MOST_FALSE:.0%} claim a difference, in turns and apart.",
        met=all(_is_seldom(row["false alarms"]) for row in rows if row["judged by"] in (_TURNS, _APART)),
        rows=rows,
        notes=[
            f"power: how often a difference is claimed of calls that take {_SLOWER - 1:.0%} longer: reckoned by moving "
            f"the interval; in the rows of {_PLANTED!r} those calls took longer in fact",
            f"{_APART}: each group of launches stands in two comparisons, with the one before and the one after it",
            "the time below is that of the last sitting: comparisons that were kept before took theirs",
            f"{_CALLS}: what the calls of one launch of each say, as all did before there were several",
            f"up to {_BUDGET.launches} launches or pairs, of {_BUDGET.min_seconds:g} s together at least, one thread",
        ],
    )


def _is_seldom(share: Cell) -> bool:
    return isinstance(share, float) and share <= _MOST_FALSE


def _compare(model: str, missing: Mapping[str, int]) -> Iterator[Comparison]:
    """Prepare a model once, and compare it with itself as often as each way is missing."""
    with tempfile.TemporaryDirectory() as folder:
        own, base, slowed = _sides(model, Path(folder))
        before: Part | None = None
        for number in range(max(missing.values())):
            if number < missing[_TURNS]:
                yield Comparison(model, _TURNS, _in_turns(own, base))
            if number < missing.get(_PLANTED, 0):
                yield Comparison(model, _PLANTED, _in_turns(slowed, base))
            if number < max(missing[_APART], missing[_CALLS]):
                before = before or _alone(base)
                group = _alone(own)
                yield Comparison(model, _APART, _of_launches(group, before))
                yield Comparison(model, _CALLS, _of_calls(group, before))
                before = group


def _sides(model: str, folder: Path) -> tuple[Side, Side, Side]:
    """Prepare a model, and return it three times, from one saved folder; the third is slowed down."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(PROGRAMS / _SLOWED), os.environ.get("PYTHONPATH")])
    )  # idle where the file is not
    variant = dataclasses.replace(plan(model, 6), budget=_BUDGET, threads=1, interleave=True)
    places = [folder / name for name in ("own", "base", _SLOWED)]
    places[0].mkdir()
    prepare(variant, places[0])
    for place in places[1:]:
        shutil.copytree(places[0], place, copy_function=os.link)
    (places[2] / _SLOWED).write_text(str(_SLOWER - 1), encoding="utf-8")
    own, base, slowed = (Side(variant, place) for place in places)
    return own, base, slowed


def _read(path: Path, here: Mapping[str, str]) -> list[Comparison]:
    """Return the comparisons that were kept, of the same machine and versions."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, lines) if row["machine"] == here]
    return [Comparison(row["model"], row["way"], tuple(row["bounds"]) if row["bounds"] else None) for row in rows]


def _keep(path: Path, here: Mapping[str, str], comparison: Comparison) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**dataclasses.asdict(comparison), "machine": here}, ensure_ascii=False) + "\n")


def _row(model: str, way: str, every: Sequence[_Bounds | None]) -> dict[str, Cell]:
    """Return how often a difference is claimed; a comparison without an interval claims none."""
    known = [bounds for bounds in every if bounds is not None]
    claims = sum(not low <= 1 <= high for low, high in known) / len(every)
    moved = sum(not low * _SLOWER <= 1 <= high * _SLOWER for low, high in known) / len(every)
    widths = [math.sqrt(high / low) - 1 for low, high in known]
    return {
        "model": model,
        "judged by": way,
        "comparisons": len(every),
        "with an interval": len(known),
        "false alarms": None if way == _PLANTED else claims,
        "power at 5 %": claims if way == _PLANTED else moved,
        "half width, median": statistics.median(widths) if widths else None,
    }


def _alone(side: Side) -> Part:
    variant = dataclasses.replace(side.variant, interleave=False)
    return _sound(launches.measure(variant, side.folder, "cpu", False, _silent))


def _sound(part: Part) -> Part:
    """Return a part that was measured.

    Raises:
        RuntimeError: it was not.
    """
    if part.outcome.status != "ok":
        raise RuntimeError(f"a comparison failed: {part.outcome.reason}")
    return part


def _in_turns(own: Side, base: Side) -> _Bounds | None:
    return _of_turns(_sound(interleave.alternate(own, base, "cpu", False, _silent)))


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
    if not all("cpu/latency_ms" in part.samples for part in (own, base)):
        return None
    logs = [[math.log(ms) for ms in _first_launch(part)] for part in (own, base)]
    ends = [interval(each, 50) for each in logs]
    if ends[0] is None or ends[1] is None:
        return None
    low, high = difference_interval(percentile(logs[0], 50), ends[0], percentile(logs[1], 50), ends[1])
    return math.exp(low), math.exp(high)


def _first_launch(part: Part) -> Sequence[float]:
    wall = part.samples["cpu/latency_ms"]
    return parts(wall, part.samples.get("cpu/launch_sizes", [len(wall)]))[0]
