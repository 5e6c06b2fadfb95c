"""Says which variants miss what was asked of them: the check of a pull request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.ranking import direction, lacking, primary
from mlflow_compress.reporting.table_text import DIFFERENCE, is_original, label, number
from mlflow_compress.words import DEVICES

_LATENCY = {device: f"{device}/latency_p50_ms" for device in DEVICES}
_MEMORY = {"cpu": "cpu/ram_peak_mib", "gpu": "gpu/vram_peak_mib"}
_SIZE, _DISK = "size/weights_mib", "size/disk_mib"
_PERFECT = {"share": 1.0, "error_rate": 1.0, "hundred": 100.0}  # less an error, by the metric's scale: what is right


@dataclass(frozen=True)
class Drop:
    """How much quality may be lost.

    Attributes:
        amount: the most that may be lost.
        relative: as a part of the original's quality; otherwise in the score's own unit.
    """

    amount: float
    relative: bool

    @classmethod
    def read(cls, text: str) -> Drop:
        """Read `1%` (a part of the original's quality) or `0.005` (in the score's own unit).

        Raises:
            RecipeError: it is neither.
        """
        try:
            amount = float(text.strip().removesuffix("%"))
        except ValueError:
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise RecipeError(f"{text!r} is no drop of quality. Give a part of the original's, 1%, or a number, 0.005.")
        relative = text.strip().endswith("%")
        return cls(amount / 100 if relative else amount, relative)


# MLPerf Inference: the quality of a closed division's model is at least 99 % (or 99.9 %) of that of the FP32 reference.
PRESETS = {"mlperf": Drop(0.01, relative=True), "mlperf-high": Drop(0.001, relative=True)}


@dataclass(frozen=True)
class Demands:
    """What every variant must reach; None asks nothing.

    Attributes:
        min_speedup: the original's median latency divided by the variant's.
        max_quality_drop: on the score that stands for the model's quality.
        max_size_ratio: bytes of weights divided by the original's; on disk where that is less.
        max_memory_ratio: peak memory divided by the original's.
        device: whose latency and memory: `cpu` or `gpu`.
    """

    min_speedup: float | None = None
    max_quality_drop: Drop | None = None
    max_size_ratio: float | None = None
    max_memory_ratio: float | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Miss:
    """A variant that misses a demand, and why in words."""

    team: str
    model: str
    method: str
    reason: str


def misses(comparison: Comparison, demands: Demands) -> list[Miss]:
    """Check every variant of a comparison. What was not measured misses: a gate must not open for lack of numbers.

    A variant that failed misses too; one that was skipped has nothing to check.

    Args:
        comparison: its originals are not checked.
        demands: what to check.

    Source: MLPerf Inference rules, "Quality targets", for the relative drop of quality. There a word error rate counts
    by its complement, and a perplexity by its inverse.
    """
    found = [
        Miss(row.team, row.model, row.method, reason)
        for row in comparison.rows
        if not is_original(row)
        for reason in _reasons(row, demands, comparison.metrics)
    ]
    failed = [each for each in comparison.failures if each.status == "failed"]
    return found + [Miss(each.team, each.model, each.method, f"failed: {each.reason}") for each in failed]


def _reasons(row: Row, demands: Demands, known: Known) -> Iterator[str]:
    latency, memory = _LATENCY[demands.device], _MEMORY[demands.device]
    if demands.min_speedup is not None:
        speedup = 1 / row.ratios[latency] if row.ratios.get(latency) else None
        if speedup is None:
            yield f"{label(latency, 'en', with_unit=False)}: no ratio to the original is known"
        elif speedup < demands.min_speedup:
            yield f"{number(speedup, 3)}x as fast as the original, not {demands.min_speedup:g}x{_noise(row, latency)}"
    size = row.ratios.get(_SIZE)
    on_disk = row.ratios.get(_DISK, math.inf)
    for what, ratio, most in (
        ("size", None if size is None else min(size, on_disk), demands.max_size_ratio),
        (label(memory, "en", with_unit=False), row.ratios.get(memory), demands.max_memory_ratio),
    ):
        if most is not None and ratio is None:
            yield f"{what}: no ratio to the original is known"
        elif most is not None and ratio is not None and ratio > most:
            yield f"{what} is {number(ratio, 3)}x of the original's, more than {most:g}x"
    if demands.max_quality_drop is not None:
        yield from _lost(row, demands.max_quality_drop, known)


def _noise(row: Row, name: str) -> str:
    low, high = row.ratio_intervals.get(name, (0.0, 0.0))
    return f" (95 % interval: {number(1 / high, 3)}x to {number(1 / low, 3)}x)" if low > 0 else ""


def _lost(row: Row, allowed: Drop, known: Known) -> Iterator[str]:
    """Say what was lost of the score that stands for a row's quality, where that is too much or can't be told."""
    name = primary(row, known)
    if not name:
        yield "quality: it was not scored"
        return
    difference = row.values.get(name + DIFFERENCE)
    if difference is None:
        yield "quality: no difference from the original on the same samples is known"
        return
    if difference == 0:
        return
    better = direction(name, known)
    if better is None:
        yield f"quality: {lacking(name, 'direction')}"
        return
    own, original = row.values[name], row.values[name] - difference
    if (difference > 0) == better:
        return
    lost = abs(difference)
    if allowed.relative:
        scale = metric_facts.of(name, known).scale
        if scale is None and not better:
            yield f"quality: {lacking(name, 'scale')}. Or give the drop in the score's own unit"
            return
        part = _part_lost(own, original, better, _PERFECT.get(scale or ""))
        if part is None:
            yield (
                f"quality: no part of the original's {label(name, 'en', known)}, {number(original)}, can be lost. "
                "Give the drop in the score's own unit"
            )
            return
        lost = part
    if lost > allowed.amount * (1 + 1e-9):
        said = f"{100 * lost:.3g} % of it" if allowed.relative else number(lost, 3)
        most = f"{100 * allowed.amount:g} %" if allowed.relative else f"{allowed.amount:g}"
        yield (
            f"{label(name, 'en', known)} is {number(own)}, the original's {number(original)}: {said} lost, "
            f"more than {most}"
        )


def _part_lost(own: float, original: float, better: bool, perfect: float | None) -> float | None:
    """Return the part of the original's quality that is lost; None where the original has none that could be.

    Args:
        own: the variant's score, the worse one.
        original: the original's.
        better: whether more is better.
        perfect: what all right answers make; None: the score has no end.
    """
    if not better and perfect is not None:
        own, original = perfect - own, perfect - original
    elif not better:
        return (own - original) / own if original > 0 else None  # 1 - (1 / own) / (1 / original)
    return (original - own) / original if original > 0 else None
