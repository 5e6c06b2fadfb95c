"""Compares numbers with the original's: ratios, and differences of scores, with their intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from mlflow_compress.budget import FEWEST_LAUNCHES
from mlflow_compress.percentiles import LogError, difference_interval
from mlflow_compress.records import Reference, Run, finite
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.launch_noise import MOST_LAUNCHES
from mlflow_compress.reporting.table_text import DIFFERENCE, LOAD, PREPARE
from mlflow_compress.words import DEVICES

# Two launches of one model on a shared machine differ by less than a factor of 2. If a ratio in turns and the ratio of
# two runs differ by more than this, they are not of the same two models. Where the noise of the two runs is known, only
# other load on the machine may add to it.
MOST_CONTRADICTION, MOST_OF_LOAD = 4.0, 2.0
_PROTOCOL = "compress.protocol."
_ESTIMATED = "_estimated_j"  # from rated power and load: between two rows it says no more than their latencies do
MOST_TIMES = 1e4  # more or less than the original: no compression does that
# Metrics computed from the median latency alone, with the exponent: their ratio, and the claim about it, follow the
# median's. Throughput is not one of them: it is computed from the mean.
MADE_OF_MEDIAN: Mapping[str, int] = {"tokens_per_s": -1, "real_time_factor": 1}
_ROUNDED = 1e-6
_OF_PAIRS = ("latency_ratio", "latency_ratio_low", "latency_ratio_high", "pairs")  # launches in turns


@dataclass
class Ratios:
    """Values divided by the original's values.

    Attributes:
        values: the ratios, by metric name.
        intervals: their 95 % confidence intervals, where the noise is known.
        degrees: degrees of freedom of each interval; infinite where absent.
        not_believed: metrics whose ratio was left out because it is impossible.
    """

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    degrees: dict[str, float] = field(default_factory=dict)
    not_believed: list[str] = field(default_factory=list)

    def disbelieve(self, name: str) -> None:
        """Leave out the ratio of a metric."""
        self.not_believed.append(name)
        for numbers in (self.values, self.intervals, self.degrees):
            numbers.pop(name, None)

    def add_interval(self, name: str, error: LogError) -> None:
        """Add the interval of a ratio of two latencies whose error is known."""
        self.intervals[name], self.degrees[name] = error.interval(self.values[name]), error.degrees

    def follow_medians(self, own: Mapping[str, float], base: Mapping[str, float]) -> None:
        """Derive the ratios of metrics that depend on the median latency alone from the median's ratio and interval.

        Args:
            own: the row's numbers, by metric name.
            base: the original's numbers.
        """
        for device, (quantity, power) in itertools.product(DEVICES, MADE_OF_MEDIAN.items()):
            name, median = f"{device}/{quantity}", latency(device)
            if name not in self.values or median not in self.values or not (own.get(median) and base.get(median)):
                continue
            if not math.isclose(self.values[name], (own[median] / base[median]) ** power, rel_tol=_ROUNDED):
                continue  # from another version, or from another plugin
            self.values[name] = self.values[median] ** power
            if median in self.intervals:
                low, high = sorted(end**power for end in self.intervals[median])
                self.intervals[name] = low, high
            if median in self.degrees:
                self.degrees[name] = self.degrees[median]


def latency(device: str) -> str:
    """Return the name of a device's median latency."""
    return f"{device}/latency_p50_ms"


def in_turns(values: Mapping[str, float]) -> Ratios:
    """Return the ratios of latencies that were measured in turns with the original, with their intervals.

    One pair of processes is one launch of each. Its rounds do not show the noise between launches, so there is no
    interval, whatever was logged.
    """
    ratios = Ratios()
    for device in DEVICES:
        name, logged = latency(device), f"{device}/latency_ratio"
        ratio, low, high = (values.get(f"{logged}{end}", math.nan) for end in ("", "_low", "_high"))
        if math.isnan(ratio):
            continue
        if not is_believed(ratio):
            ratios.not_believed.append(name)
            continue
        ratios.values[name] = ratio
        pairs = values.get(f"{device}/pairs", 1.0)
        if FEWEST_LAUNCHES <= pairs <= MOST_LAUNCHES and 0 < low <= ratio <= high and low < high < math.inf:
            ratios.intervals[name], ratios.degrees[name] = (low, high), pairs - 1
    return ratios


def without_own_original(values: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers without those that were paired with the original of the row's own model.

    These are ratios in turns, and how far answers to the scored samples are from the original's.
    """
    in_pairs = {f"{device}/{quantity}" for device in DEVICES for quantity in _OF_PAIRS}
    in_pairs |= metric_facts.FIDELITY.keys() if metric_facts.FLIPS in values else set()
    return {name: value for name, value in values.items() if name not in in_pairs}


def unpaired(run: Run) -> Run:
    """Return a run without the differences of its scores that were paired with the original of its own model."""
    return replace(run, metrics={name: value for name, value in run.metrics.items() if DIFFERENCE not in name})


def why_unsure(values: Mapping[str, float], original: Reference | None, device: str) -> str:
    """Return the kind of footnote that explains why the noise of a row's latency ratio is not known.

    Args:
        values: the row's numbers, by metric name.
        original: what the row is compared with.
        device: `cpu` or `gpu`.
    """
    is_in_turns = f"{device}/latency_ratio" in values
    launches = values.get(f"{device}/{'pairs' if is_in_turns else 'launches'}", 1.0)
    if launches < FEWEST_LAUNCHES:
        return "two_launches" if launches == FEWEST_LAUNCHES - 1 else "one_launch"
    if is_in_turns or original is None or original.launches.get(device, 1.0) >= FEWEST_LAUNCHES:
        return "unknown_noise"
    return "few_of_original"


def ratios_to(values: Mapping[str, float], base: Mapping[str, float], apart: Collection[str]) -> dict[str, float]:
    """Return a line's numbers divided by the original's, where the ratio has a meaning.

    Args:
        values: the line's numbers, by metric name.
        base: the original's numbers.
        apart: devices, or metric names, whose numbers were measured under other circumstances.
    """
    apart = {*apart, PREPARE, LOAD}  # an original is not compressed, and the noise of one load is not known
    names = (name for name in values if name not in apart and name.partition("/")[0] not in apart)
    shared = (name for name in names if base.get(name) and not name.endswith(_ESTIMATED))
    return finite({name: values[name] / base[name] for name in shared})


def is_believed(ratio: float) -> bool:
    """Return whether a compression can reach a ratio at all."""
    return 1 / MOST_TIMES <= ratio <= MOST_TIMES


def contradicts(ratio: float, other: float, error: LogError | None = None) -> bool:
    """Return whether a ratio in turns and a ratio of two runs are too far apart to be of the same two models.

    Args:
        ratio: the ratio of the latencies in turns.
        other: the ratio of the latencies of the two runs.
        error: the error of `other`, where it is known: then only the machine's load may add to it.
    """
    max_ratio = MOST_CONTRADICTION
    if error is not None:
        max_ratio = min(max_ratio, MOST_OF_LOAD * math.exp(min(error.half_width(), math.log(max_ratio))))
    return not 1 / max_ratio <= ratio / other <= max_ratio


def differences(own: Run | None, original: Run | None) -> dict[str, float]:
    """Return the differences of scores from the original's, where samples and protocols are the same.

    Include the ends of each interval, where it is known.
    """
    if own is None or original is None or not _same_samples(own, original):
        return {}
    scores: dict[str, float] = {}
    for tag, protocol in own.tags.items():
        name = f"quality/{tag.removeprefix(_PROTOCOL)}"
        is_score = tag.startswith(_PROTOCOL) and name in own.metrics and name in original.metrics
        if is_score and original.tags.get(tag) == protocol:
            scores[f"{name}{DIFFERENCE}"] = own.metrics[name] - original.metrics[name]
            if ends := _ends(name, own.metrics, original.metrics):
                scores |= {f"{name}{DIFFERENCE}_low": ends[0], f"{name}{DIFFERENCE}_high": ends[1]}
    return finite(scores)


def _same_samples(own: Run, original: Run) -> bool:
    keys = [(run.tags.get("compress.data_digest"), run.metrics.get("quality/samples")) for run in (own, original)]
    return keys[0] == keys[1] and all(keys[0])


def _ends(name: str, own: Mapping[str, float], original: Mapping[str, float]) -> tuple[float, float] | None:
    """Return the interval of a difference: the paired one, if the pairs were made with this original."""
    ends = f"{name}_low", f"{name}_high"
    paired = [own.get(f"{name}{DIFFERENCE}{end}", math.nan) for end in ("", "_low", "_high")]
    if math.isclose(paired[0], own[name] - original[name], rel_tol=1e-9, abs_tol=1e-12):
        return None if any(map(math.isnan, paired)) else (paired[1], paired[2])
    if not all(end in numbers for end in ends for numbers in (own, original)):
        return None
    return difference_interval(
        own[name], (own[ends[0]], own[ends[1]]), original[name], (original[ends[0]], original[ends[1]])
    )


def shown_scores(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the quality numbers that a row shows.

    Leave out differences, since the row may have another original by now. Leave out how far the outputs moved on random
    inputs, where answers to real inputs were scored; where these were compared with the original's, show that.
    """
    scored = {name for name in numbers if name not in metric_facts.FIDELITY and name != metric_facts.COUNT}
    is_compared = metric_facts.FLIPS in numbers
    hidden = {metric_facts.OUTPUT_ERROR} if is_compared else set(metric_facts.FIDELITY) if scored else set()
    return {name: value for name, value in numbers.items() if DIFFERENCE not in name and name not in hidden}
