"""Chooses what a chart of a comparison shows: which numbers, absolute or relative, and which points are best."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlflow_compress import words
from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting import metric_facts, pairs, pareto
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.ranking import primary
from mlflow_compress.reporting.table_text import DIFFERENCE, METRICS, NOTHING_SAID, is_original, label, ordered

_SIZE, _SCORES = "size/weights_mib", "quality/"
_TIMES = ("cpu/latency_p50_ms", "gpu/latency_p50_ms")
# Numbers that only describe another number: interval ends, spread, sample sizes.
_DETAIL = re.compile(r"_(?:low|high|stderr)(?:_ms)?$|_launch_sd$|/(?:launches|pairs|rounds|\w+_ratio)$")


@dataclass(frozen=True)
class Axis:
    """One axis of a scatter.

    Attributes:
        name: the metric of the axis.
        relative: whether it shows the metric relative to the original: the ratio, or a score's difference.
    """

    name: str
    relative: bool = False

    @property
    def is_score(self) -> bool:
        """Whether it is a score, whose distance from the original is a difference."""
        return self.name.startswith(_SCORES)

    def value(self, row: Row) -> float | None:
        """Return a row's value on the axis; None where it has none."""
        value = row.values.get(self.name)
        if self.relative and value is not None:
            value = _against_original(row, self.name)
        return value if value is not None and math.isfinite(value) else None

    def label(self, language: str, known: Known = NOTHING_SAID) -> str:
        """Return its label for people, with its unit.

        Args:
            language: `en` or `ru`.
            known: the facts that the runs record about their metrics: the comparison's `metrics`.
        """
        if not self.relative:
            return label(self.name, language, known)
        if self.is_score:
            return label(f"{self.name}{DIFFERENCE}", language, known)
        return f"{label(self.name, language, known, with_unit=False)}, {words.DIVIDED_BY_ORIGINAL[language]}"

    @property
    def group(self) -> str:
        """What must be the same for two rows: `cpu` means the hardware; empty for a distance from the original."""
        return "" if self.relative else self.name.partition("/")[0]


def metrics(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the metrics that rows can be drawn by, in a file's order, without ends, errors and differences."""
    names = {name for row in rows for name, value in row.values.items() if math.isfinite(value)}
    ends = {f"{name}{end}" for name in names for end in (*metric_facts.DETAILS, DIFFERENCE)}
    return tuple(name for name in ordered(names) if name in names - ends and not _DETAIL.search(name))


def charted(comparison: Comparison) -> Comparison:
    """Return the comparison without numbers whose newest attempt failed: earlier numbers are not drawn.

    If only a device or the scoring failed, only its numbers are removed. The rows stay, so that their places are those
    of the table.
    """
    failed: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for failure in comparison.failures:
        if failure.status == "failed":
            failed[failure.team, failure.model, failure.method].add(failure.device)
    return replace(
        comparison,
        rows=tuple(_without(row, failed.get((row.team, row.model, row.method), set())) for row in comparison.rows),
    )


def _without(row: Row, groups: Collection[str]) -> Row:
    """Remove a measured row's numbers of some groups (`cpu`, `quality`); all, where one of them is empty."""
    if row.by_hand or not groups:
        return row

    def kept(numbers: Mapping[str, float]) -> dict[str, float]:
        return {name: number for name, number in numbers.items() if not {"", name.partition("/")[0]} & {*groups}}

    return replace(row, values=kept(row.values), ratios=kept(row.ratios))


def axes(comparison: Comparison) -> tuple[Axis, Axis] | None:
    """Choose the first two axes: the objectives, else time against a score or size; None where nothing can be drawn.

    The objectives are drawn as they were ranked, with absolute values. Otherwise rows of several models are drawn
    relative to their originals, because numbers of different models are not comparable.
    """
    names = metrics(comparison.rows)
    if ranked := objectives(comparison):
        return ranked
    chosen_names = [name for name in comparison.objectives if name in names][:2]
    if len(chosen_names) < 2:
        chosen_names = _usual(comparison, names)
    if len(chosen_names) < 2:
        return None
    plain = (Axis(chosen_names[0]), Axis(chosen_names[1]))
    relative = (Axis(chosen_names[0], relative=True), Axis(chosen_names[1], relative=True))
    has_several_models = len({row.model for row in _on(plain, comparison.rows)}) > 1
    has_distances = any(not is_original(row) for row in _on(relative, comparison.rows))
    return relative if has_several_models and has_distances else plain


def objectives(comparison: Comparison) -> tuple[Axis, Axis] | None:
    """Return the axes of the first two objectives; None where rows were not ranked, or lack the numbers.

    `quality` is replaced by the score that most rows were ranked by.
    """
    drawable = metrics(comparison.rows)
    ranked = [row for row in comparison.rows if row.dominated is not None]
    scores = Counter(primary(row, comparison.metrics) for row in ranked)
    score = max(scores, key=lambda name: scores[name], default="")
    names = [score if name == metric_facts.GROUP else name for name in comparison.objectives]
    names = [name for name in names if name in drawable][:2]
    return (Axis(names[0]), Axis(names[1])) if len(names) == 2 and ranked else None


def bars(comparison: Comparison) -> str | None:
    """Choose the metric of the first bars: a time if there is one; None where nothing has a ratio."""
    names = [name for name in metrics(comparison.rows) if not name.startswith(_SCORES)]

    def count(name: str) -> int:
        return sum(name in row.ratios for row in comparison.rows)

    times = [name for name in _TIMES if count(name)]
    return max(times or filter(count, names), key=count, default=None)


def fronts(comparison: Comparison, chosen_axes: tuple[Axis, Axis]) -> tuple[tuple[Row, ...], ...]:
    """Return the rows that no comparable row beats, see `pareto`.

    Returns:
        One front for each group of comparable rows, from the first axis' best to the second's; empty if an axis has no
            direction. On the axes of the objectives these are the best rows of the Pareto column.
    """
    groups: dict[int, list[Row]] = {}
    for row, verdict in zip(comparison.rows, verdicts(comparison, chosen_axes), strict=True):
        if verdict is not None and not verdict[0]:
            groups.setdefault(verdict[1], []).append(row)
    if not groups:
        return ()
    losses = [_loss(axis, comparison.greater_is_better) for axis in chosen_axes]
    return tuple(tuple(sorted(front, key=lambda row: [loss(row) for loss in losses])) for front in groups.values())


def joined(comparison: Comparison, front: Sequence[Row], chosen_axes: tuple[Axis, Axis]) -> tuple[Row, ...]:
    """Return the rows of a front that its line joins.

    A row that is worse than another by no more than noise is on the front, but off the line.
    """
    losses = [_loss(axis, comparison.greater_is_better) for axis in chosen_axes]
    are_behind = pareto.beaten([[loss(row) for loss in losses] for row in front])
    return tuple(row for row, is_behind in zip(front, are_behind, strict=True) if not is_behind)


def verdicts(comparison: Comparison, chosen_axes: tuple[Axis, Axis]) -> list[tuple[bool, int] | None]:
    """Return for each row whether another one beats it on two axes by more than noise, and its group of rows.

    None for a row that is not on both axes, and for all rows where an axis has no direction. On the axes of the
    objectives the verdicts are those of the Pareto column.
    """
    if any(axis.name not in comparison.greater_is_better for axis in chosen_axes):
        return [None] * len(comparison.rows)
    are_drawn = [all(axis.value(row) is not None for axis in chosen_axes) for row in comparison.rows]
    if objectives(comparison) in (chosen_axes, chosen_axes[::-1]):
        return [
            (row.dominated, row.ranked_in or 0) if is_drawn and row.dominated is not None else None
            for row, is_drawn in zip(comparison.rows, are_drawn, strict=True)
        ]
    groups = [axis.group for axis in chosen_axes if axis.group]
    keys = [
        pareto.peers(row, groups, against_originals=len(groups) < 2) if is_drawn else None
        for row, is_drawn in zip(comparison.rows, are_drawn, strict=True)
    ]
    losses = [_loss(axis, comparison.greater_is_better) for axis in chosen_axes]
    noisy = max(1, sum(pairs.is_noisy(axis.name) for axis in chosen_axes))

    def differ(one: int, other: int, number: int, count: int) -> bool:
        axis = chosen_axes[number]
        is_apart = pairs.differ_from_originals if axis.relative else pairs.differ
        return is_apart(comparison.rows[one], comparison.rows[other], axis.name, noisy * count)

    return pareto.verdicts(keys, [[loss(row) for loss in losses] for row in comparison.rows], differ)


def judged_axes(comparison: Comparison) -> tuple[Axis, ...]:
    """Return the axes for which each pair is judged: the table's numbers and deciding scores, absolute and relative."""
    scored = dict.fromkeys(primary(row, comparison.metrics) for row in comparison.rows)
    names = [
        name for name in metrics(comparison.rows) if name in METRICS or name in scored or name in comparison.objectives
    ]
    return tuple(Axis(name, relative=relative) for relative in (False, True) for name in names)


def _against_original(row: Row, name: str) -> float | None:
    is_score = name.startswith(_SCORES)
    if is_original(row):
        return 0.0 if is_score else 1.0
    return row.values.get(f"{name}{DIFFERENCE}") if is_score else row.ratios.get(name)


def _usual(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """Choose the time that most rows have, and a score if at least half of these rows have it, else the size."""

    def count(*required: str) -> int:
        return sum(all(name in row.values for name in required) for row in comparison.rows)

    times = [name for name in _TIMES if name in names]
    first = max(times, key=count, default=None)
    untimed = [name for name in names if name not in _TIMES]
    if first is None:
        return untimed[:2]
    headlines = {primary(row, comparison.metrics) for row in comparison.rows}
    scores = [name for name in untimed if name.startswith(_SCORES) and 2 * count(first, name) >= count(first)]
    scores = [name for name in scores if name in headlines] or [name for name in scores if name != metric_facts.COUNT]
    second = max(scores, key=lambda name: count(first, name), default=_SIZE if _SIZE in names else None)
    return [first, second] if second else [first, *untimed[:1]]


def _on(chosen_axes: tuple[Axis, Axis], rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if all(axis.value(row) is not None for axis in chosen_axes)]


def _loss(axis: Axis, greater_is_better: Mapping[str, bool]) -> Callable[[Row], float]:
    sign = -1.0 if greater_is_better[axis.name] else 1.0
    return lambda row: sign * (axis.value(row) or 0.0)
