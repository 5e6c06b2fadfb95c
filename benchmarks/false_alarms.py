"""How often equal models are reported as different, and how often a slow-down of 5 % is detected.

The same saved original is both the variant and the original (A/A), many times for each model:

* in turns, as in a sweep: several pairs of fresh processes with one ratio each. All comparisons are disjoint;
* separately, as in two runs: launches of each side alone, compared by Welch's t; a quarter as often. Each group of
  launches is compared with the previous one, so it is part of two comparisons: the share of false alarms is unbiased,
  but a little less certain;
* by the calls of one launch of each group, as in versions with a single launch.

The criterion is that of the table: different if the 95 % interval of the ratio does not contain 1. (A table also
corrects for many rows, which can only reduce claims.) A comparison without an interval, since only one launch fitted or
launches were lost, claims nothing, and is counted.

For the power, the interval is moved by 5 %: a slow-down of every call multiplies each launch's median, and so the
ratio, by 1.05, and does not change the spread of its logarithm. With `COMPRESS_PLANTED=1`, comparisons in turns are
repeated with a variant that is really slower: inside each of its timed calls a loop keeps the core busy for 5 % of the
call's time (`programs/slowed/sitecustomize.py`). This takes as long as the comparisons in turns.

The goal is met if at most 8 % of the comparisons are reported as different. The budget is the default without energy.
Each comparison is stored in `results/false_alarms.jsonl` at once, and stored comparisons of the same machine and
versions count: the benchmark can be stopped at any time and continues later. `COMPRESS_PAIRS` and `COMPRESS_MODELS` set
the number of comparisons (default: 40) and the models.
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
_APART_SHARE = 4  # comparisons in turns per group of launches: one process at a time takes twice as long
_BUDGET = Budget(energy_seconds=0)
_KEPT = RESULTS / "false_alarms.jsonl"
_SLOWED = "slowed"  # programs, and the file in a variant's folder that slows it down
_TURNS, _PLANTED, _APART, _CALLS = "turns", "turns, 5 % planted", "launches apart", "calls of one launch"

_Bounds = tuple[float, float]  # of a ratio


@dataclass(frozen=True)
class Comparison:
    """One comparison of a model with itself.

    Attributes:
        model: name of the model.
        way: method of comparison.
        bounds: the ends of the ratio's 95 % interval; None if unknown.
    """

    model: str
    way: str
    bounds: _Bounds | None


def find(quick: bool) -> Finding:
    """Compare each model with itself many times."""
    models = tuple(filter(None, os.environ.get("COMPRESS_MODELS", "").split(","))) or _MODELS
    count = int(os.environ.get("COMPRESS_PAIRS") or (_QUICK_COMPARISONS if quick else _COMPARISONS))
    calls_apart = math.ceil(count / _APART_SHARE)
    target_counts = {_TURNS: count, _APART: calls_apart, _CALLS: calls_apart}
    if os.environ.get("COMPRESS_PLANTED"):
        target_counts[_PLANTED] = count
    with tempfile.TemporaryDirectory() as unkept:
        results_file = Path(unkept, _KEPT.name) if quick else _KEPT
        this_machine = {key: machine().get(key, "") for key in ("cpu_model", "cores_logical", "torch", "version")}
        rows = []
        for model in models[: 1 if quick else None]:
            comparisons = [comparison for comparison in _read(results_file, this_machine) if comparison.model == model]
            missing = {
                way: number - sum(past.way == way for past in comparisons) for way, number in target_counts.items()
            }
            if any(left > 0 for left in missing.values()):
                for comparison in _compare(model, missing):
                    _keep(results_file, this_machine, comparison)
                    comparisons.append(comparison)
            rows += [
                _row(model, way, [past.bounds for past in comparisons if past.way == way]) for way in target_counts
            ]
    return Finding(
        name="false_alarms",
        goal=f"of comparisons of a model with itself at most {_MOST_FALSE:.0%} claim a difference, in turns and apart.",
        met=all(_is_seldom(row["false alarms"]) for row in rows if row["judged by"] in (_TURNS, _APART)),
        rows=rows,
        notes=[
            f"power: how often a difference is claimed for calls that take {_SLOWER - 1:.0%} longer, computed by "
            f"moving the interval; in the rows {_PLANTED!r} the calls really took longer",
            f"{_APART}: each group of launches is part of two comparisons, with the previous and with the next group",
            "the time below is that of the last session, without that of comparisons stored earlier",
            f"{_CALLS}: comparison by the calls of one launch of each side, as in versions with a single launch",
            f"up to {_BUDGET.launches} launches or pairs, together at least {_BUDGET.min_seconds:g} s, one thread",
        ],
    )


def _is_seldom(share: Cell) -> bool:
    return isinstance(share, float) and share <= _MOST_FALSE


def _compare(model: str, missing: Mapping[str, int]) -> Iterator[Comparison]:
    """Prepare a model once, and make the missing comparisons of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        own, base, slowed = _sides(model, Path(folder))
        earlier_part: Part | None = None
        for number in range(max(missing.values())):
            if number < missing[_TURNS]:
                yield Comparison(model, _TURNS, _in_turns(own, base))
            if number < missing.get(_PLANTED, 0):
                yield Comparison(model, _PLANTED, _in_turns(slowed, base))
            if number < max(missing[_APART], missing[_CALLS]):
                earlier_part = earlier_part or _alone(base)
                group = _alone(own)
                yield Comparison(model, _APART, _of_launches(group, earlier_part))
                yield Comparison(model, _CALLS, _of_calls(group, earlier_part))
                earlier_part = group


def _sides(model: str, folder: Path) -> tuple[Side, Side, Side]:
    """Prepare a model, and return three copies of its saved folder; the third is slowed down."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(PROGRAMS / _SLOWED), os.environ.get("PYTHONPATH")])
    )  # without the file `slowed` it does nothing
    variant = dataclasses.replace(plan(model, 6), budget=_BUDGET, threads=1, interleave=True)
    places = [folder / name for name in ("own", "base", _SLOWED)]
    places[0].mkdir()
    prepare(variant, places[0])
    for folder_copy in places[1:]:
        shutil.copytree(places[0], folder_copy, copy_function=os.link)
    (places[2] / _SLOWED).write_text(str(_SLOWER - 1), encoding="utf-8")
    own, base, slowed = (Side(variant, place) for place in places)
    return own, base, slowed


def _read(path: Path, this_machine: Mapping[str, str]) -> list[Comparison]:
    """Return the stored comparisons of the same machine and versions."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, lines) if row["machine"] == this_machine]
    return [Comparison(row["model"], row["way"], tuple(row["bounds"]) if row["bounds"] else None) for row in rows]


def _keep(path: Path, this_machine: Mapping[str, str], comparison: Comparison) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**dataclasses.asdict(comparison), "machine": this_machine}, ensure_ascii=False) + "\n")


def _row(model: str, way: str, comparisons: Sequence[_Bounds | None]) -> dict[str, Cell]:
    """Return the share of comparisons that claim a difference; a comparison without an interval claims none."""
    known_bounds = [bounds for bounds in comparisons if bounds is not None]
    claims = sum(not low <= 1 <= high for low, high in known_bounds) / len(comparisons)
    moved = sum(not low * _SLOWER <= 1 <= high * _SLOWER for low, high in known_bounds) / len(comparisons)
    widths = [math.sqrt(high / low) - 1 for low, high in known_bounds]
    return {
        "model": model,
        "judged by": way,
        "comparisons": len(comparisons),
        "with an interval": len(known_bounds),
        "false alarms": None if way == _PLANTED else claims,
        "power at 5 %": claims if way == _PLANTED else moved,
        "half width, median": statistics.median(widths) if widths else None,
    }


def _alone(side: Side) -> Part:
    variant = dataclasses.replace(side.variant, interleave=False)
    return _sound(launches.measure(variant, side.folder, "cpu", False, _silent))


def _sound(part: Part) -> Part:
    """Return a measured part.

    Raises:
        RuntimeError: it could not be measured.
    """
    if part.outcome.status != "ok":
        raise RuntimeError(f"a comparison failed: {part.outcome.reason}")
    return part


def _in_turns(own: Side, base: Side) -> _Bounds | None:
    return _of_turns(_sound(interleave.alternate(own, base, "cpu", False, _silent)))


def _silent(event: Mapping[str, object]) -> None:
    """Ignore an event."""


def _of_turns(part: Part) -> _Bounds | None:
    low, high = (part.measurements.get(f"cpu/latency_ratio_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def _of_launches(own: Part, base: Part) -> _Bounds | None:
    numbers = own.measurements, base.measurements
    if min(side.get("cpu/launches", 0) for side in numbers) < FEWEST_LAUNCHES:
        return None
    errors = [error_of_launches(side["cpu/latency_launch_sd"], round(side["cpu/launches"])) for side in numbers]
    ratio = numbers[0]["cpu/latency_p50_ms"] / numbers[1]["cpu/latency_p50_ms"]
    low, high = ratio_error(*errors).interval(ratio)
    return low, high


def _of_calls(own: Part, base: Part) -> _Bounds | None:
    if not all("cpu/latency_ms" in part.samples for part in (own, base)):
        return None
    logs = [[math.log(ms) for ms in _first_launch(part)] for part in (own, base)]
    ends = [interval(side, 50) for side in logs]
    if ends[0] is None or ends[1] is None:
        return None
    low, high = difference_interval(percentile(logs[0], 50), ends[0], percentile(logs[1], 50), ends[1])
    return math.exp(low), math.exp(high)


def _first_launch(part: Part) -> Sequence[float]:
    wall = part.samples["cpu/latency_ms"]
    return parts(wall, part.samples.get("cpu/launch_sizes", [len(wall)]))[0]
