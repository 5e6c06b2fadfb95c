"""`measure`: measure a variant on a device in several fresh launches, and combine them.

A launch is one fresh process that restores the saved model and times calls. Launches of the same model differ more than
the calls within one launch, so a single launch can't tell how certain its median is. The first launch measures
everything; the further ones only time their share of the calls.

Source: Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013: repeat at the highest level that varies.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow_compress.measuring import checks
from mlflow_compress.measuring.one_process import Listener, work
from mlflow_compress.measuring.timing import LAUNCHES
from mlflow_compress.measuring.worker import SCORE
from mlflow_compress.meters import latency
from mlflow_compress.meters.latency import Timing
from mlflow_compress.percentiles import launch_mean, percentile
from mlflow_compress.records import Caution, CautionKind, Part, Variant, metric_group

MOST_FAILURES = 2  # of further launches; then no more are tried
_SPARE_SECONDS = 60.0  # extra time of a further launch, compared with the first one
_NOT_STAGES = ("latency", "warmup", "latency_events")  # samples of a launch in milliseconds that are not of a stage

LOST_LAUNCHES = CautionKind(
    "lost_launches",
    short={"en": "fewer launches than planned", "ru": "запусков меньше, чем планировалось"},
    message={
        "en": "{group}: {kept} of {planned} launches could be timed: {reason}",
        "ru": "{group}: удалось измерить {kept} из {planned} запусков: {reason}",
    },
    advice={
        "en": "Measure again: with fewer launches, less is known about the noise.",
        "ru": "Измерьте снова: чем меньше запусков, тем хуже известен шум.",
    },
)


def measure(variant: Variant, folder: Path, device: str, score: bool, listener: Listener) -> Part:
    """Measure a variant on a device.

    Args:
        variant: The variant to measure.
        folder: Its prepared folder.
        device: `cpu` or an accelerator.
        score: Whether the first launch also scores the quality.
        listener: Receives each progress event.

    Returns:
        The first launch's part, with the latencies of all launches. Its own numbers stay if other launches fail.
    """
    started = time.monotonic()
    part = work("measure", variant, folder, listener, device, SCORE if score else "")
    planned = planned_launches(part, variant)
    first = without_plan(part)
    if first.outcome.status != "ok":
        return first
    hurried = in_seconds(variant, time.monotonic() - started + _SPARE_SECONDS)
    launches, failures = [first], list[str]()
    for number in range(2, planned + 1):
        if len(failures) == MOST_FAILURES:
            break
        launch = work("time", hurried, folder, listener, device, f"{number}/{planned}")
        if failure := why_unusable(launch, metric_group(device)):
            failures.append(failure)
        else:
            launches.append(launch)
    return together(launches, planned, failures, metric_group(device), variant.batch_size)


def planned_launches(part: Part, variant: Variant) -> int:
    """Return the number of launches that share the budget, as the first launch planned it; 1 if it does not say."""
    count = part.facts.get(LAUNCHES, "")
    return min(int(count), variant.budget.launches) if count.isdecimal() and len(count) < 4 else 1


def without_plan(part: Part) -> Part:
    """Return a part without the internal fact about the planned launches."""
    return dataclasses.replace(part, facts={name: fact for name, fact in part.facts.items() if name != LAUNCHES})


def in_seconds(variant: Variant, seconds: float) -> Variant:
    """Return a variant whose worker is stopped after this number of seconds at the latest."""
    timeout = min(variant.budget.timeout_seconds, seconds)
    return dataclasses.replace(variant, budget=dataclasses.replace(variant.budget, timeout_seconds=timeout))


def why_unusable(launch: Part, group: str) -> str:
    """Return why a further launch has no valid latencies; empty if it has. The model's own code may have lied."""
    if launch.outcome.status != "ok":
        return launch.outcome.reason
    wall = launch.samples.get(f"{group}/latency_ms")
    return "" if wall and min(wall) > 0 else "the timing wrote no latencies"


def together(launches: Sequence[Part], planned: int, failures: Sequence[str], group: str, batch_size: int) -> Part:
    """Combine the launches of a variant on a device.

    Args:
        launches: Their parts; the first one has all other measurements, too.
        planned: Planned number of launches.
        failures: Why other launches have no latencies.
        group: `cpu` or `gpu`.
        batch_size: Samples in one call.
    """
    first = launches[0]
    cautions: list[Caution] = list(first.cautions)
    for launch in launches[1:]:
        codes = {caution.code for caution in cautions}
        cautions += [caution for caution in launch.cautions if caution.code not in codes]
    if calls := sum(len(launch.samples.get(f"{group}/latency_ms", ())) for launch in launches):
        cautions = [*checks.few(calls, group), *cautions]
    if failures:
        cautions.append(LOST_LAUNCHES.of(group=group, kept=len(launches), planned=planned, reason=failures[0]))
    if len(launches) > 1 and not why_unusable(first, group):
        timing = _pooled(launches, group)
        numbers = {**first.measurements, **_means(launches), **latency.numbers(timing, group, batch_size)}
        first = dataclasses.replace(
            first, measurements=numbers, samples={**first.samples, **latency.samples(timing, group)}
        )
    return dataclasses.replace(first, cautions=tuple(cautions))


def _pooled(launches: Sequence[Part], group: str) -> Timing:
    """Return the samples of all launches, one launch after the other."""

    def all_of(name: str) -> list[float]:
        return [value for launch in launches for value in launch.samples.get(f"{group}/{name}", ())]

    names = {name.removeprefix(f"{group}/") for launch in launches[1:] for name in launch.samples}
    stages = {name.removesuffix("_ms") for name in names if name.endswith("_ms")} - set(_NOT_STAGES)
    return Timing(
        wall_ms=all_of("latency_ms"),
        events_ms=all_of("latency_events_ms"),
        stages_ms={stage: samples for stage in sorted(stages) if (samples := all_of(f"{stage}_ms"))},
        warmup_ms=all_of("warmup_ms"),
        round_sizes=[round(size) for size in all_of("round_sizes")],
        launch_sizes=[len(launch.samples[f"{group}/latency_ms"]) for launch in launches],
    )


def _means(launches: Sequence[Part]) -> dict[str, float]:
    """Return the means over launches of the numbers that all launches have, also of rates such as tokens per second."""
    shared = [name for name in launches[0].measurements if all(name in launch.measurements for launch in launches)]
    values = {name: [launch.measurements[name] for launch in launches] for name in shared}
    return {
        name: launch_mean(numbers) if min(numbers) > 0 and math.isfinite(max(numbers)) else percentile(numbers, 50)
        for name, numbers in values.items()
    }
