"""Says how far numbers are from the original's: ratios, and differences of scores, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlflow_compress.percentiles import difference_interval, ratio_interval
from mlflow_compress.records import Run, finite
from mlflow_compress.reporting.table_text import DIFFERENCE
from mlflow_compress.words import DEVICES

_PROTOCOL = "compress.protocol."


def in_turns(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return the ratios of latencies that were measured in turns with the original, and their intervals."""
    ratios, intervals = {}, {}
    for device in DEVICES:
        name, ratio = f"{device}/latency_p50_ms", f"{device}/latency_ratio"
        if ratio in values:
            ratios[name] = values[ratio]
            if f"{ratio}_low" in values and f"{ratio}_high" in values:
                intervals[name] = (values[f"{ratio}_low"], values[f"{ratio}_high"])
    return ratios, intervals


def ratios_to(values: Mapping[str, float], base: Mapping[str, float], apart: set[str]) -> dict[str, float]:
    """Return a line's numbers divided by the original's, but for those of devices that were measured apart."""
    both = (name for name in values if base.get(name) and name.partition("/")[0] not in apart)
    return finite({name: values[name] / base[name] for name in both})


def intervals_of(
    values: Mapping[str, float], base: Mapping[str, float], ratios: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return the confidence intervals of the ratios whose medians have standard errors."""
    found = {}
    for name in ratios:
        error = f"{name.removesuffix('_ms')}_stderr_ms"
        if values[name] > 0 and error in values and error in base:
            found[name] = ratio_interval(values[name], values[error], base[name], base[error])
    return found


def differences(own: Run | None, original: Run | None) -> dict[str, float]:
    """Return how far scores are from the original's, where samples and protocols are the same.

    With the ends of its interval, where that is known.
    """
    if own is None or original is None or not _same_samples(own, original):
        return {}
    found: dict[str, float] = {}
    for tag, protocol in own.tags.items():
        name = f"quality/{tag.removeprefix(_PROTOCOL)}"
        is_score = tag.startswith(_PROTOCOL) and name in own.metrics and name in original.metrics
        if is_score and original.tags.get(tag) == protocol:
            found[f"{name}{DIFFERENCE}"] = own.metrics[name] - original.metrics[name]
            if ends := _ends(name, own.metrics, original.metrics):
                found |= {f"{name}{DIFFERENCE}_low": ends[0], f"{name}{DIFFERENCE}_high": ends[1]}
    return finite(found)


def _same_samples(own: Run, original: Run) -> bool:
    said = [(run.tags.get("compress.data_digest"), run.metrics.get("quality/samples")) for run in (own, original)]
    return said[0] == said[1] and all(said[0])


def _ends(name: str, own: Mapping[str, float], original: Mapping[str, float]) -> tuple[float, float] | None:
    """Return the interval of a difference: that of the pairs, if it was this original that they were paired with."""
    ends = f"{name}_low", f"{name}_high"
    paired = [own.get(f"{name}{DIFFERENCE}{end}", math.nan) for end in ("", "_low", "_high")]
    if math.isclose(paired[0], own[name] - original[name], rel_tol=1e-9, abs_tol=1e-12):
        return None if any(map(math.isnan, paired)) else (paired[1], paired[2])
    if not all(end in numbers for end in ends for numbers in (own, original)):
        return None
    return difference_interval(
        own[name], (own[ends[0]], own[ends[1]]), original[name], (original[ends[0]], original[ends[1]])
    )


def without_differences(numbers: Mapping[str, float]) -> dict[str, float]:
    """Leave out what was logged of differences: the row may have another original by now."""
    return {name: value for name, value in numbers.items() if DIFFERENCE not in name}
