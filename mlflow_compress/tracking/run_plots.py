"""Plots of one result: every timed call in order, the distribution of calls, and memory over time."""

from __future__ import annotations

import io
from typing import Any

from mlflow_compress.percentiles import percentile
from mlflow_compress.records import Result

_GROUPS = ("cpu", "gpu")
_PHASES = ("import", "load", "warmup", "run", "around")


def latency_png(result: Result) -> bytes | None:
    """Return a PNG of each device's latency samples; None where there are none."""
    timed = {group: result.samples.get(f"{group}/latency_ms", []) for group in _GROUPS}
    timed = {group: samples for group, samples in timed.items() if samples}
    if not timed:
        return None
    figure = new_figure(10, 3.2 * len(timed))
    figure.suptitle(title(result))
    axes = figure.subplots(len(timed), 2, squeeze=False, width_ratios=(3, 1), sharey="row")
    for (series, spread), (group, samples) in zip(axes, timed.items(), strict=True):
        warmup = result.samples.get(f"{group}/warmup_ms", [])
        series.plot(range(-len(warmup), 0), warmup, ".", color="0.6", label="warm-up")
        series.plot(range(len(samples)), samples, ".", color="C0", label="counted")
        middle = percentile(samples, 50)
        series.axhline(middle, color="C3", linewidth=1, label=f"median {middle:.4g} ms")
        series.set(xlabel="call", ylabel=f"{group.upper()} latency, ms")
        series.set_ylim(0, 1.15 * percentile([*warmup, *samples], 99.5))
        series.legend(loc="lower right")
        spread.hist(samples, bins=min(40, max(5, len(samples) // 3)), orientation="horizontal", color="C0")
        spread.axhline(middle, color="C3", linewidth=1)
        spread.set(xlabel="calls")
    return png(figure)


def memory_png(result: Result) -> bytes | None:
    """Return a PNG of each device's memory over time, with the kernel's peak of each phase; None without samples."""
    timelines = {group: result.samples.get(f"{group}/ram_timeline_mib", []) for group in _GROUPS}
    timelines = {group: series for group, series in timelines.items() if series}
    if not timelines:
        return None
    figure = new_figure(10, 3.2 * len(timelines))
    figure.suptitle(title(result))
    for axes, (group, series) in zip(
        figure.subplots(len(timelines), 1, squeeze=False)[:, 0], timelines.items(), strict=True
    ):
        axes.plot(result.samples[f"{group}/ram_timeline_s"], series, color="C0", label="resident memory, sampled")
        for index, phase in enumerate(_PHASES):
            if (peak := result.measurements.get(f"{group}/ram_peak_{phase}_mib")) is not None:
                label = f"peak of {phase}: {peak:,.0f} MB"
                axes.axhline(peak, color=f"C{index + 1}", linewidth=1, linestyle="--", label=label)
        axes.set(xlabel="seconds", ylabel=f"{group.upper()} run: RAM, MB")
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
    return png(figure)


def title(result: Result) -> str:
    """Return the title of a result's pictures."""
    variant = result.variant
    return _plain(f"{variant.model}, {variant.method}, batch {variant.batch_size}")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; its sides are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    """Return a figure as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics."""
    return text.replace("$", r"\$")
