"""The picture of one result: every timed call, in order, and how the calls are spread."""

from __future__ import annotations

import io

from mlflow_compress.percentiles import percentile
from mlflow_compress.records import Result

_GROUPS = ("cpu", "gpu")


def latency_png(result: Result) -> bytes | None:
    """Draw the latency samples of each device as PNG; None when there are none."""
    timed = {group: result.samples.get(f"{group}/latency_ms", []) for group in _GROUPS}
    timed = {group: samples for group, samples in timed.items() if samples}
    if not timed:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * len(timed)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(f"{result.variant.model}, {result.variant.method}, batch {result.variant.batch_size}"))
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
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics."""
    return text.replace("$", r"\$")
