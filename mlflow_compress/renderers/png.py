"""PNG: one picture for a slide, with the trade-off of two numbers and each method's ratio to its original."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress import words
from mlflow_compress.plain_text import plain
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting.chart_choices import Axis, axes, bars, charted, fronts, joined, objectives
from mlflow_compress.reporting.table_text import (
    cells,
    columns,
    is_original,
    is_told_apart,
    label,
    method,
    ratio,
    told_apart_over_models,
)
from mlflow_compress.sockets import Renderer
from mlflow_compress.words import Text

MOST_BARS = 30
_MOST_NAMES = 14
_MOST_TRIES = 6  # each removes about half of the ticks
_INCHES, _DPI = (16, 9), 150

# Okabe and Ito, "Color Universal Design" (2008), without its yellow: safe for colour-blind people, and on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "P", "v", "X", "p")
_OTHER = ("#8A8A8A", "*")  # for methods without a colour and shape of their own
_BETTER, _WORSE, _NEUTRAL = "#0072B2", "#D55E00", "#8A8A8A"


@dataclass
class Png(Renderer):
    """A picture of 2400 by 1350 pixels: on the left the Pareto scatter, on the right a bar for each row's ratio.

    The scatter's axes are the comparison's first two objectives, else a time against a score or the size. Rows of
    several models are shown relative to their originals. The 14 most frequent methods have their own colour and shape.
    Above 30 rows the bars are the methods' means over all models; without means they are the best 30 rows, and the
    title states how many there are.
    """

    suffix: ClassVar[str] = ".png"

    def render(self, comparison: Comparison) -> bytes:
        """Return the comparison as PNG."""
        import matplotlib as mpl

        picture = io.BytesIO()
        # Names are never formulas, and missing glyphs are not an error.
        style: dict[Any, Any] = {"text.parse_math": False, "font.family": "DejaVu Sans", "font.size": 13}
        with mpl.rc_context(style), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Gg]lyph")
            figure(comparison).savefig(picture, format="png", dpi=_DPI)
        return picture.getvalue()


def figure(comparison: Comparison) -> Any:
    """Return the matplotlib figure: first the axes of the scatter, then those of the bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    texts = words.PICTURE[comparison.language]
    comparison = charted(comparison)
    picture = Figure(figsize=_INCHES, layout="constrained", facecolor="white")
    FigureCanvasAgg(picture)
    picture.suptitle(
        _short(": ".join(filter(None, (words.COMPARISON[comparison.language], comparison.title))), 90), fontsize=18
    )
    scatter, barred = picture.subplots(1, 2, width_ratios=(1.1, 1))
    for axis in (scatter, barred):
        axis.spines[["top", "right"]].set_visible(False)
    chosen_axes = axes(comparison)
    if chosen_axes is None:
        _show_empty(scatter, texts)
    else:
        _scatter(scatter, comparison, chosen_axes, texts)
    compared = bars(comparison)
    if compared is None:
        _show_empty(barred, texts)
    else:
        _bars(barred, comparison, compared, texts)
    _spread_ticks([scatter.xaxis, scatter.yaxis, barred.xaxis])
    return picture


def _scatter(plot: Any, comparison: Comparison, chosen_axes: tuple[Axis, Axis], texts: Text) -> None:
    x, y = chosen_axes
    best = fronts(comparison, chosen_axes)
    among_best = {id(row) for front in best for row in front}
    rows = [row for row in comparison.rows if x.value(row) is not None and y.value(row) is not None]
    styles = _looks(rows)
    is_of_column = chosen_axes == objectives(comparison)
    has_lines = not is_of_column or len(comparison.objectives) == 2
    lines = [line for front in best if has_lines and len(line := joined(comparison, front, chosen_axes)) > 1]
    for line in lines:
        points = sorted((_at(row, chosen_axes) for row in line), key=lambda point: point[0])
        steps = _steps(points, comparison, chosen_axes)
        plot.plot(*zip(*steps, strict=True), "--", color="0.45", linewidth=1.4, zorder=1)
    marks: dict[tuple[str, str, str, int], list[tuple[float, float]]] = {}  # equal-looking points are drawn together
    for row in rows:
        colour, marker = styles.get(row.method, _OTHER)
        is_beaten = row.dominated is True if is_of_column else bool(best) and id(row) not in among_best
        face = "white" if is_beaten else colour
        marks.setdefault((marker, colour, face, 10), []).append(_at(row, chosen_axes))
        if is_original(row):
            marks.setdefault(("o", "0.2", "none", 19), []).append(_at(row, chosen_axes))
        if row.by_hand:
            marks.setdefault(("s", "0.2", "none", 19), []).append(_at(row, chosen_axes))
    for (marker, edge, face, size), points in marks.items():
        style = {"markeredgecolor": edge, "markerfacecolor": face, "markeredgewidth": 1.8 if size == 10 else 1}
        height = 3 if face == "white" else 4  # unbeaten points are on top
        plot.plot(*zip(*points, strict=True), linestyle="", marker=marker, markersize=size, zorder=height, **style)
    for axis, name in zip(chosen_axes, "xy", strict=True):
        _lay_out(plot, [value for row in rows if (value := axis.value(row)) is not None], axis, name, comparison, texts)
    has_hollow = any(face == "white" for _, _, face, _ in marks)
    _explain(plot, comparison, rows, styles, texts, has_hollow=has_hollow, has_lines=bool(lines))
    if len({row.model for row in rows}) > 1 and all(len({row.model for row in front}) == 1 for front in best):
        plot.set_title(texts["by_model"], fontsize=13, color="0.3")


def _explain(
    plot: Any,
    comparison: Comparison,
    rows: Sequence[Row],
    styles: Mapping[str, tuple[str, str]],
    texts: Text,
    *,
    has_hollow: bool,
    has_lines: bool,
) -> None:
    """Add a legend below the scatter."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=9) for colour, marker in styles.values()
    ]
    names = [_short(method(name, comparison.language)) for name in styles]
    if unnamed := len({row.method for row in rows} - styles.keys()):
        handles.append(Line2D([], [], color=_OTHER[0], marker=_OTHER[1], linestyle="", markersize=9))
        names.append(texts["others"].format(count=unnamed))
    frames = ((any(map(is_original, rows)), "o", "original"), (any(row.by_hand for row in rows), "s", "by_hand"))
    for has_frame, marker, word in frames:
        if has_frame:
            frame: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": "0.2", "markersize": 13}
            handles.append(Line2D([], [], marker=marker, linestyle="", **frame))
            names.append(texts[word])
    if has_lines:
        handles.append(Line2D([], [], color="0.45", linestyle="--"))
        names.append(texts["front"])
    if has_hollow:
        hollow: dict[str, Any] = {
            "markerfacecolor": "white",
            "markeredgecolor": "0.4",
            "markersize": 9,
            "markeredgewidth": 1.8,
        }
        handles.append(Line2D([], [], marker="o", linestyle="", **hollow))
        names.append(texts["dominated"])
    # matplotlib leaves out labels that begin with an underscore.
    for ncols in (4, 3, 2):
        legend = plot.figure.legend(
            handles, [f" {name}" for name in names], loc="outside lower center", ncols=ncols, fontsize=12, frameon=False
        )
        width = legend.get_window_extent(plot.figure.canvas.get_renderer()).width
        if width < plot.figure.bbox.width or ncols == 2:
            break
        legend.remove()


@dataclass(frozen=True)
class _Bar:
    """A ratio to the original, its name, and the ends of its interval, both 0 where it is unknown."""

    name: str
    ratio: float
    low: float = 0.0
    high: float = 0.0
    told_apart: bool | None = None  # None: the noise is unknown

    @property
    def is_noise(self) -> bool:
        return self.told_apart is False


def _bars(plot: Any, comparison: Comparison, name: str, texts: Text) -> None:
    greater = comparison.greater_is_better.get(name)
    row_bars, means = _of_rows(comparison, name), _of_methods(comparison, name)
    are_means = len(row_bars) > MOST_BARS and len(means) > 1
    all_bars = sorted(means if are_means else row_bars, key=lambda bar: bar.ratio, reverse=greater is True)
    shown_bars = all_bars[:MOST_BARS]
    size = 12.0 if len(shown_bars) < 20 else 9.5
    for position, bar in enumerate(shown_bars):
        is_judged = greater is not None and bar.told_apart and ratio(bar.ratio) != ratio(1)
        colour = (_BETTER if (bar.ratio > 1) == greater else _WORSE) if is_judged else _NEUTRAL
        look = {"facecolor": "white", "hatch": "////"} if bar.is_noise else {"facecolor": colour}
        plot.barh(position, bar.ratio - 1, left=1, height=0.7, edgecolor=colour, **look)
        if 0 < bar.low < bar.high:
            plot.plot([bar.low, bar.high], [position, position], color="0.15", linewidth=1.5)
        # In a separate column, where they cover neither names nor bars.
        text = f"{'≈' if bar.is_noise else ''}{ratio(bar.ratio)}"
        placement = {
            "xycoords": plot.get_yaxis_transform(),
            "textcoords": "offset points",
            "ha": "right",
            "va": "center",
        }
        plot.annotate(text, (1, position), (5.2 * size, 0), fontsize=size, annotation_clip=False, **placement)
    plot.set_xscale("log", base=2)
    ratios = [bar.ratio for bar in shown_bars]
    plot.set_xlim(min(0.8, *ratios) / 1.1, max(1.25, *ratios) * 1.1)
    plot.xaxis.set_major_formatter(lambda value, _: ratio(value))
    plot.xaxis.set_minor_formatter(lambda *_: "")
    plot.set_yticks(range(len(shown_bars)), [bar.name for bar in shown_bars], fontsize=size)
    plot.set_ylim(len(shown_bars) - 0.4, -0.6)
    plot.axvline(1, color="0.25", linewidth=1.3)
    plot.grid(axis="x", color="0.9")
    plot.set_axisbelow(True)
    title = texts["bars"].format(metric=label(name, comparison.language, comparison.metrics, with_unit=False))
    notes = [] if greater is None else [texts["higher" if greater else "lower"]]
    notes += [texts["means"]] if are_means else []
    notes += (
        [texts["left_out"].format(shown=len(shown_bars), all=len(all_bars))] if len(shown_bars) < len(all_bars) else []
    )
    notes += [texts["noise"]] if any(bar.is_noise for bar in shown_bars) else []
    notes += [texts["unknown"]] if any(bar.told_apart is None for bar in shown_bars) else []
    plot.set_title(f"{title}\n{' · '.join(notes)}" if notes else title, fontsize=13, loc="right")


def _of_rows(comparison: Comparison, name: str) -> list[_Bar]:
    rows = [row for row in comparison.rows if _is_drawable(row.ratios.get(name)) and not is_original(row)]
    has_several = {kind: len({getattr(row, kind) for row in rows}) > 1 for kind in ("model", "team")}
    bars_of_rows = []
    for row in rows:
        (name_shown,) = cells(row, columns(("method",)), comparison.language)
        model_and_team = (
            _short(row.model, 18) if has_several["model"] else "",
            _short(row.team, 12) if has_several["team"] else "",
        )
        ends = row.ratio_intervals.get(name, (0.0, 0.0))
        ends = ends if all(map(math.isfinite, ends)) else (0.0, 0.0)
        parts = (_short(name_shown, 34), *model_and_team)
        bars_of_rows.append(_Bar(" · ".join(filter(None, parts)), row.ratios[name], *ends, is_told_apart(row, name)))
    return bars_of_rows


def _of_methods(comparison: Comparison, name: str) -> list[_Bar]:
    """Return a bar for each method with a mean over several models."""
    return [
        _Bar(
            _short(method(summary.method, comparison.language)),
            summary.ratios[name],
            told_apart=told_apart_over_models(summary, name),
        )
        for summary in comparison.summaries
        if summary.counts.get(name, summary.models) > 1 and _is_drawable(summary.ratios.get(name))
    ]


def _is_drawable(value: float | None) -> bool:
    return value is not None and value > 0 and math.isfinite(value)


def _looks(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Return a colour and a shape for the most frequent methods, with no combination used twice."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.method] = counts.get(row.method, 0) + 1
    most_frequent = sorted(counts, key=lambda name: -counts[name])[:_MOST_NAMES]
    # 7 colours and 8 shapes: the combination repeats after 56.
    names = [name for name in counts if name in most_frequent]
    return {name: (_COLOURS[index % 7], _MARKERS[index % 8]) for index, name in enumerate(names)}


def _at(row: Row, chosen_axes: tuple[Axis, Axis]) -> tuple[float, float]:
    x, y = (axis.value(row) for axis in chosen_axes)
    return x or 0.0, y or 0.0


def _steps(
    points: Sequence[tuple[float, float]], comparison: Comparison, chosen_axes: tuple[Axis, Axis]
) -> list[tuple[float, float]]:
    """Join a front's points by steps along the worse side."""
    worse_of = [min if comparison.greater_is_better[axis.name] else max for axis in chosen_axes]
    path = list(points[:1])
    for previous, point in itertools.pairwise(points):
        path += [(worse_of[0](previous[0], point[0]), worse_of[1](previous[1], point[1])), point]
    return path


def _lay_out(plot: Any, values: Sequence[float], axis: Axis, side: str, comparison: Comparison, texts: Text) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    text = axis.label(comparison.language, comparison.metrics)
    if (greater := comparison.greater_is_better.get(axis.name)) is not None:
        text += f" ({texts['higher' if greater else 'lower']})"
    plot.set(**{f"{side}label": textwrap.fill(text, 56)})
    ticks = getattr(plot, f"{side}axis")
    is_ratio = axis.relative and not axis.is_score
    if values and min(values) > 0 and max(values) / min(values) > (5 if is_ratio else 20):
        plot.set(**{f"{side}scale": "log"})
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) / min(values) < 200 else (1,)))
        ticks.set_minor_formatter(NullFormatter())
    ticks.set_major_formatter((lambda value, _: ratio(value)) if is_ratio else (lambda value, _: f"{value:.12g}"))
    plot.margins(0.09)
    plot.grid(color="0.92")
    plot.set_axisbelow(True)


def _spread_ticks(axes_with_numbers: Sequence[Any]) -> None:
    """Remove ticks until no labels overlap: first those between powers of ten, then every second one."""
    picture = axes_with_numbers[0].figure
    crowded = list(axes_with_numbers)
    for _ in range(_MOST_TRIES):
        picture.draw_without_rendering()
        crowded = [axis for axis in crowded if _is_crowded(axis)]
        if not crowded:
            return
        for axis in crowded:
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
            powers = [tick for tick in ticks if axis.get_scale() == "log" and math.log10(tick).is_integer()]
            axis.set_ticks(powers if 1 < len(powers) < len(ticks) else ticks[::2])


def _is_crowded(axis: Any) -> bool:
    boxes = [label.get_window_extent() for label in axis.get_majorticklabels() if label.get_text()]
    boxes = [box for box in boxes if box.width > 0]
    return any(
        one.expanded(1.15, 1.15).overlaps(other.expanded(1.15, 1.15)) for one, other in itertools.pairwise(boxes)
    )


def _show_empty(plot: Any, texts: Text) -> None:
    plot.set_axis_off()
    plot.text(0.5, 0.5, texts["nothing"], ha="center", va="center", color="0.35", transform=plot.transAxes)


def _short(text: str, longest: int = 42) -> str:
    """Shorten a name to one line that fits the picture."""
    return plain(text, longest)
