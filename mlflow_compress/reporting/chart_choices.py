"""What a chart of a comparison shows: which numbers, as measured or against the original, and which points are best."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow_compress import words
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import metric_facts, pareto
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.ranking import primary
from mlflow_compress.reporting.table_text import DIFFERENCE, NOTHING_SAID, is_original, label, ordered

_SIZE, _SCORES = "size/weights_mib", "quality/"
_TIMES = ("cpu/latency_p50_ms", "gpu/latency_p50_ms")
# What only describes another number: the ends of its interval, its spread, what stands behind it.
_DETAIL = re.compile(r"_(?:low|high|stderr)(?:_ms)?$|_launch_sd$|/(?:launches|pairs|rounds|latency_ratio)$")


@dataclass(frozen=True)
class Axis:
    """One axis of a scatter.

    Attributes:
        name: the metric.
        relative: whether it shows the metric against the original's: the ratio, or a score's difference.
    """

    name: str
    relative: bool = False

    @property
    def is_score(self) -> bool:
        """Whether it is about quality, whose distance from the original is a difference."""
        return self.name.startswith(_SCORES)

    def value(self, row: Row) -> float | None:
        """Return where a row is on the axis; None where it has no such number."""
        found = row.values.get(self.name)
        if self.relative and found is not None:
            found = _against_original(row, self.name)
        return found if found is not None and math.isfinite(found) else None

    def label(self, language: str, known: Known = NOTHING_SAID) -> str:
        """Return its name for people, with its unit.

        Args:
            language: `en` or `ru`.
            known: what the runs say of their metrics: the comparison's `metrics`.
        """
        if not self.relative:
            return label(self.name, language, known)
        if self.is_score:
            return label(f"{self.name}{DIFFERENCE}", language, known)
        return f"{label(self.name, language, known, with_unit=False)}, {words.DIVIDED_BY_ORIGINAL[language]}"

    @property
    def group(self) -> str:
        """What must be the same of two rows: `cpu` stands for the hardware; a distance from the original asks none."""
        return "" if self.relative else self.name.partition("/")[0]


def metrics(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the metrics that rows can be drawn by, in a file's order: no interval's ends, errors or differences."""
    names = {name for row in rows for name, value in row.values.items() if math.isfinite(value)}
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high", DIFFERENCE)}
    return tuple(name for name in ordered(names) if name in names - ends and not _DETAIL.search(name))


def charted(it: Comparison) -> Comparison:
    """Take the numbers away from rows whose own run failed as a whole: what it measured before is no point of a chart.

    The rows stay, so that their places are those of the table's.
    """
    failed = {failure.run_id for failure in it.failures if not failure.device}
    rows = (replace(row, values={}, ratios={}) if failed & set(row.runs.values()) else row for row in it.rows)
    return replace(it, rows=tuple(rows))


def axes(it: Comparison) -> tuple[Axis, Axis] | None:
    """Choose what to draw first: the objectives, else time against a score or size; None where nothing can be.

    The objectives are drawn as they were ranked, as measured. Otherwise rows of several models are drawn against their
    originals, since the numbers of two models say nothing about each other.
    """
    names = metrics(it.rows)
    if ranked := objectives(it):
        return ranked
    wanted = [name for name in it.objectives if name in names][:2]
    if len(wanted) < 2:
        wanted = _usual(it, names)
    if len(wanted) < 2:
        return None
    plain = (Axis(wanted[0]), Axis(wanted[1]))
    relative = (Axis(wanted[0], relative=True), Axis(wanted[1], relative=True))
    several = len({row.model for row in _on(plain, it.rows)}) > 1
    has_distances = any(not is_original(row) for row in _on(relative, it.rows))
    return relative if several and has_distances else plain


def objectives(it: Comparison) -> tuple[Axis, Axis] | None:
    """Return the axes of the first two objectives; None where rows were not ranked, or can't be drawn by both.

    For `quality` stands the score that most rows were ranked by.
    """
    drawn = metrics(it.rows)
    ranked = [row for row in it.rows if row.dominated is not None]
    scores = Counter(primary(row, it.metrics) for row in ranked)
    score = max(scores, key=lambda name: scores[name], default="")
    names = [score if name == metric_facts.GROUP else name for name in it.objectives]
    names = [name for name in names if name in drawn][:2]
    return (Axis(names[0]), Axis(names[1])) if len(names) == 2 and ranked else None


def bars(it: Comparison) -> str | None:
    """Choose the metric whose ratios are drawn first: a time if there is one; None where nothing has a ratio."""
    names = [name for name in metrics(it.rows) if not name.startswith(_SCORES)]

    def count(name: str) -> int:
        return sum(name in row.ratios for row in it.rows)

    times = [name for name in _TIMES if count(name)]
    return max(times or filter(count, names), key=count, default=None)


def fronts(it: Comparison, chosen: tuple[Axis, Axis]) -> tuple[tuple[Row, ...], ...]:
    """Return the rows that none of those that they may be compared with beats, see `pareto`.

    Returns:
        One front for each group of rows that may be compared, from the first axis' best to the second's; none at all
        if an axis has no direction. On the axes of the objectives they are the rows that the column calls the best.
    """
    if any(axis.name not in it.greater_is_better for axis in chosen):
        return ()
    rows = _on(chosen, it.rows)
    losses = [_loss(axis, it.greater_is_better) for axis in chosen]
    groups: dict[object, list[Row]] = {}
    if chosen == objectives(it):
        for row in rows:
            groups.setdefault(row.ranked_in, []).extend([] if row.dominated is not False else [row])
    else:
        for shared, row in zip(classes(rows, chosen), rows, strict=True):
            groups.setdefault(shared, []).append(row)
        for key, members in groups.items():
            beaten = pareto.beaten([[loss(row) for loss in losses] for row in members])
            groups[key] = [row for row, verdict in zip(members, beaten, strict=True) if not verdict]
    return tuple(
        tuple(sorted(front, key=lambda row: [loss(row) for loss in losses])) for front in groups.values() if front
    )


def classes(rows: Iterable[Row], chosen: tuple[Axis, Axis]) -> list[tuple[str, ...]]:
    """Return of each row what it shares with those that it may be compared with on two axes."""
    groups = [axis.group for axis in chosen if axis.group]
    return [pareto.peers(row, groups, against_originals=len(groups) < 2) for row in rows]


def _against_original(row: Row, name: str) -> float | None:
    is_score = name.startswith(_SCORES)
    if is_original(row):
        return 0.0 if is_score else 1.0
    return row.values.get(f"{name}{DIFFERENCE}") if is_score else row.ratios.get(name)


def _usual(it: Comparison, names: Sequence[str]) -> list[str]:
    """Choose the time that most rows have, and a score if at least half of these rows have it, else the size."""

    def count(*wanted: str) -> int:
        return sum(all(name in row.values for name in wanted) for row in it.rows)

    times = [name for name in _TIMES if name in names]
    first = max(times, key=count, default=None)
    rest = [name for name in names if name not in _TIMES]
    if first is None:
        return rest[:2]
    headlines = {primary(row, it.metrics) for row in it.rows}
    scores = [name for name in rest if name.startswith(_SCORES) and 2 * count(first, name) >= count(first)]
    scores = [name for name in scores if name in headlines] or [name for name in scores if name != metric_facts.COUNT]
    second = max(scores, key=lambda name: count(first, name), default=_SIZE if _SIZE in names else None)
    return [first, second] if second else [first, *rest[:1]]


def _on(chosen: tuple[Axis, Axis], rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if all(axis.value(row) is not None for axis in chosen)]


def _loss(axis: Axis, greater_is_better: Mapping[str, bool]) -> Callable[[Row], float]:
    sign = -1.0 if greater_is_better[axis.name] else 1.0
    return lambda row: sign * (axis.value(row) or 0.0)
