"""Decides which rows may be compared, and which of them no other row beats: one rule for the table and the charts.

The column `pareto`, the PNG and the page all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from mlflow_compress.records import Row
from mlflow_compress.reporting import metric_facts

QUALITY = metric_facts.GROUP


def peers(row: Row, groups: Iterable[str], *, score: str = "", against_originals: bool = False) -> tuple[Hashable, ...]:
    """Return what must be the same for two rows before one can beat the other.

    Numbers of a device are compared on the same hardware, scores on the same data. Where a score is among the numbers
    and its data is known, different models are compared with each other; otherwise each model only with itself. Rows
    copied by hand are compared only within their team and table, never with measured rows.

    Args:
        row: a row of a comparison.
        groups: the groups of the numbers, the beginnings of their names: `size`, `cpu`, `gpu`, `quality`.
        score: the metric that represents the row's quality, where it is not the same for all rows.
        against_originals: whether some number is a distance from the row's original, which can't be compared between
            models. The group of such a number is left out of `groups`.
    """
    names = sorted(set(groups))
    is_scored = QUALITY in names
    circumstances = [row.circumstances.get(group, "") for group in names]
    if is_scored and row.circumstances.get(QUALITY) and not row.by_hand and not against_originals:
        team_and_model = ("", "")
    else:
        team_and_model = (row.team if row.by_hand or (is_scored and not against_originals) else "", row.model)
        circumstances += [row.circumstances.get(f"{group}_work", "") for group in names]
    return (row.by_hand, row.table, *team_and_model, score, *circumstances)


def verdicts(
    keys: Sequence[Hashable | None],
    costs: Sequence[Sequence[float]],
    differ: Callable[[int, int, int, int], bool],
) -> list[tuple[bool, int] | None]:
    """Return for each row whether another row beats it, and the number of its group of comparable rows.

    Args:
        keys: what comparable rows have in common; None for a row that is not judged, whose verdict is None.
        costs: the numbers of each row, where less is better.
        differ: whether two rows, given by index, differ in a number by more than noise, as one of a number of pairs.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(index)
    judged: list[tuple[bool, int] | None] = [None] * len(keys)
    for number, places in enumerate(groups.values()):
        count = max(1, len(places) * (len(places) - 1) // 2)

        def apart(one: int, other: int, objective: int, places: list[int] = places, count: int = count) -> bool:
            return differ(places[one], places[other], objective, count)

        for index, is_beaten in zip(places, beaten([costs[index] for index in places], apart), strict=True):
            judged[index] = (is_beaten, number)
    return judged


def beaten(
    costs: Sequence[Sequence[float]], differ: Callable[[int, int, int], bool] = lambda one, other, number: True
) -> list[bool]:
    """Return for each point whether another point is as good in every number, and better in at least one.

    Args:
        costs: the numbers of each point, where less is better; without NaN.
        differ: whether two points, given by index, differ in a number by more than noise. A point that is better only
            by noise beats no other.
    """
    front: list[int] = []
    dominated: list[int] = []
    is_beaten = [False] * len(costs)

    def beats(one: int, other: int) -> bool:
        pairs = list(zip(costs[one], costs[other], strict=True))
        return all(a <= b for a, b in pairs) and any(
            a < b and differ(one, other, number) for number, (a, b) in enumerate(pairs)
        )

    for point in sorted(range(len(costs)), key=lambda point: tuple(costs[point])):
        # Any point that beats another comes before it in this order, usually on the front; within noise not always.
        is_beaten[point] = any(beats(other, point) for other in front) or any(
            beats(other, point) for other in dominated
        )
        (dominated if is_beaten[point] else front).append(point)
    return is_beaten
