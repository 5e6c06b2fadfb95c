"""What a chart of a comparison shows: which numbers, as measured or against the original, and which points are best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlflow_compress.records import Comparison, Row
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.table_text import DIFFERENCE, NOTHING_SAID, is_original, label, ordered

_TO_ORIGINAL = {"en": "divided by the original's", "ru": "делённое на оригинал"}
_SIZE, _SCORES = "size/weights_mib", "quality/"
_TIMES = ("cpu/latency_p50_ms", "gpu/latency_p50_ms")


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
        """Give where a row is on the axis; None where it has no such number."""
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
        return f"{label(self.name, language, known, with_unit=False)}, {_TO_ORIGINAL[language]}"

    def circumstances(self, row: Row) -> str:
        """Say what a row's value may only be compared under; a distance from the original may anywhere."""
        return "" if self.relative else row.circumstances.get(self.name.partition("/")[0], "")


def metrics(rows: Iterable[Row]) -> tuple[str, ...]:
    """Give the metrics that rows can be drawn by, in a file's order: no interval's ends, errors or differences."""
    names = {name for row in rows for name, value in row.values.items() if math.isfinite(value)}
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high", DIFFERENCE)}
    return tuple(name for name in ordered(names) if name in names - ends and "_stderr_" not in name)


def axes(it: Comparison) -> tuple[Axis, Axis] | None:
    """Choose what to draw first: the objectives, else time against a score or size; None where nothing can be.

    Rows of several models are drawn against their originals, since the numbers of two models say nothing about each
    other.
    """
    names = metrics(it.rows)
    wanted = [name for name in it.objectives if name in names][:2]
    if len(wanted) < 2:
        wanted = _usual(it.rows, names)
    if len(wanted) < 2:
        return None
    plain = (Axis(wanted[0]), Axis(wanted[1]))
    relative = (Axis(wanted[0], relative=True), Axis(wanted[1], relative=True))
    several = len({row.model for row in _on(plain, it.rows)}) > 1
    has_distances = any(not is_original(row) for row in _on(relative, it.rows))
    return relative if several and has_distances else plain


def bars(it: Comparison) -> str | None:
    """Choose the metric whose ratios are drawn first: a time if there is one; None where nothing has a ratio."""
    names = [name for name in metrics(it.rows) if not name.startswith(_SCORES)]

    def count(name: str) -> int:
        return sum(name in row.ratios for row in it.rows)

    times = [name for name in _TIMES if count(name)]
    return max(times or filter(count, names), key=count, default=None)


def fronts(it: Comparison, chosen: tuple[Axis, Axis]) -> tuple[tuple[Row, ...], ...]:
    """Give the rows that no other row of the same model, under the same circumstances, is better than in both axes.

    Returns:
        One front for each model and its circumstances, from the first axis' best to the second's; none at all if an
        axis has no direction.
    """
    x, y = chosen
    if x.name not in it.greater_is_better or y.name not in it.greater_is_better:
        return ()
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in _on(chosen, it.rows):
        found.setdefault((row.model, x.circumstances(row), y.circumstances(row)), []).append(row)
    losses = [_loss(axis, it.greater_is_better) for axis in chosen]
    return tuple(_front(rows, losses[0], losses[1]) for rows in found.values())


def _against_original(row: Row, name: str) -> float | None:
    is_score = name.startswith(_SCORES)
    if is_original(row):
        return 0.0 if is_score else 1.0
    return row.values.get(f"{name}{DIFFERENCE}") if is_score else row.ratios.get(name)


def _usual(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Choose the time that most rows have, and a score if at least half of these rows have it, else the size."""

    def count(*wanted: str) -> int:
        return sum(all(name in row.values for name in wanted) for row in rows)

    times = [name for name in _TIMES if name in names]
    first = max(times, key=count, default=None)
    rest = [name for name in names if name not in _TIMES]
    if first is None:
        return rest[:2]
    scores = [name for name in rest if name.startswith(_SCORES) and 2 * count(first, name) >= count(first)]
    second = max(scores, key=lambda name: count(first, name), default=_SIZE if _SIZE in names else None)
    return [first, second] if second else [first, *rest[:1]]


def _on(chosen: tuple[Axis, Axis], rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if all(axis.value(row) is not None for axis in chosen)]


def _loss(axis: Axis, greater_is_better: Mapping[str, bool]) -> Callable[[Row], float]:
    sign = -1.0 if greater_is_better[axis.name] else 1.0
    return lambda row: sign * (axis.value(row) or 0.0)


def _front(rows: Sequence[Row], first: Callable[[Row], float], second: Callable[[Row], float]) -> tuple[Row, ...]:
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (first(row), second(row))):
        last = front[-1] if front else None
        ties = last is not None and (first(row), second(row)) == (first(last), second(last))
        if last is None or ties or second(row) < second(last):
            front.append(row)
    return tuple(front)
