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
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high", DIFFERENCE)}
    return tuple(name for name in ordered(names) if name in names - ends and not _DETAIL.search(name))


def charted(it: Comparison) -> Comparison:
    """Return the comparison without numbers whose newest attempt failed: earlier numbers are not drawn.

    If only a device or the scoring failed, only its numbers are removed. The rows stay, so that their places are those
    of the table.
    """
    failed: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for failure in it.failures:
        if failure.status == "failed":
            failed[failure.team, failure.model, failure.method].add(failure.device)
    return replace(
        it, rows=tuple(_without(row, failed.get((row.team, row.model, row.method), set())) for row in it.rows)
    )


def _without(row: Row, groups: Collection[str]) -> Row:
    """Remove a measured row's numbers of some groups (`cpu`, `quality`); all, where one of them is empty."""
    if row.by_hand or not groups:
        return row

    def kept(numbers: Mapping[str, float]) -> dict[str, float]:
        return {name: number for name, number in numbers.items() if not {"", name.partition("/")[0]} & {*groups}}

    return replace(row, values=kept(row.values), ratios=kept(row.ratios))


def axes(it: Comparison) -> tuple[Axis, Axis] | None:
    """Choose the first two axes: the objectives, else time against a score or size; None where nothing can be drawn.

    The objectives are drawn as they were ranked, with absolute values. Otherwise rows of several models are drawn
    relative to their originals, because numbers of different models are not comparable.
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
    """Return the axes of the first two objectives; None where rows were not ranked, or lack the numbers.

    `quality` is replaced by the score that most rows were ranked by.
    """
    drawn = metrics(it.rows)
    ranked = [row for row in it.rows if row.dominated is not None]
    scores = Counter(primary(row, it.metrics) for row in ranked)
    score = max(scores, key=lambda name: scores[name], default="")
    names = [score if name == metric_facts.GROUP else name for name in it.objectives]
    names = [name for name in names if name in drawn][:2]
    return (Axis(names[0]), Axis(names[1])) if len(names) == 2 and ranked else None


def bars(it: Comparison) -> str | None:
    """Choose the metric of the first bars: a time if there is one; None where nothing has a ratio."""
    names = [name for name in metrics(it.rows) if not name.startswith(_SCORES)]

    def count(name: str) -> int:
        return sum(name in row.ratios for row in it.rows)

    times = [name for name in _TIMES if count(name)]
    return max(times or filter(count, names), key=count, default=None)


def fronts(it: Comparison, chosen: tuple[Axis, Axis]) -> tuple[tuple[Row, ...], ...]:
    """Return the rows that no comparable row beats, see `pareto`.

    Returns:
        One front for each group of comparable rows, from the first axis' best to the second's; empty if an axis has no
            direction. On the axes of the objectives these are the best rows of the Pareto column.
    """
    groups: dict[int, list[Row]] = {}
    for row, verdict in zip(it.rows, verdicts(it, chosen), strict=True):
        if verdict is not None and not verdict[0]:
            groups.setdefault(verdict[1], []).append(row)
    if not groups:
        return ()
    losses = [_loss(axis, it.greater_is_better) for axis in chosen]
    return tuple(tuple(sorted(front, key=lambda row: [loss(row) for loss in losses])) for front in groups.values())


def verdicts(it: Comparison, chosen: tuple[Axis, Axis]) -> list[tuple[bool, int] | None]:
    """Return for each row whether another one beats it on two axes by more than noise, and its group of rows.

    None for a row that is not on both axes, and for all rows where an axis has no direction. On the axes of the
    objectives the verdicts are those of the Pareto column.
    """
    if any(axis.name not in it.greater_is_better for axis in chosen):
        return [None] * len(it.rows)
    drawn = [all(axis.value(row) is not None for axis in chosen) for row in it.rows]
    if objectives(it) in (chosen, chosen[::-1]):
        return [
            (row.dominated, row.ranked_in or 0) if is_drawn and row.dominated is not None else None
            for row, is_drawn in zip(it.rows, drawn, strict=True)
        ]
    groups = [axis.group for axis in chosen if axis.group]
    keys = [
        pareto.peers(row, groups, against_originals=len(groups) < 2) if is_drawn else None
        for row, is_drawn in zip(it.rows, drawn, strict=True)
    ]
    losses = [_loss(axis, it.greater_is_better) for axis in chosen]
    noisy = max(1, sum(pairs.is_noisy(axis.name) for axis in chosen))

    def differ(one: int, other: int, number: int, count: int) -> bool:
        axis = chosen[number]
        is_apart = pairs.differ_from_originals if axis.relative else pairs.differ
        return is_apart(it.rows[one], it.rows[other], axis.name, noisy * count)

    return pareto.verdicts(keys, [[loss(row) for loss in losses] for row in it.rows], differ)


def judged_axes(it: Comparison) -> tuple[Axis, ...]:
    """Return the axes for which each pair is judged: the table's numbers and deciding scores, absolute and relative."""
    scored = dict.fromkeys(primary(row, it.metrics) for row in it.rows)
    names = [name for name in metrics(it.rows) if name in METRICS or name in scored or name in it.objectives]
    return tuple(Axis(name, relative=relative) for relative in (False, True) for name in names)


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
