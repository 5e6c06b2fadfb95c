"""Says which rows may be compared with each other, and which of them none beats: the one rule of table and charts.

The column `pareto`, the picture and the page all draw what is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from mlflow_compress.records import Row
from mlflow_compress.reporting import metric_facts

QUALITY = metric_facts.GROUP


def peers(row: Row, groups: Iterable[str], *, score: str = "", against_originals: bool = False) -> tuple[Hashable, ...]:
    """Return what must be the same of two rows before one can beat the other.

    Numbers of a device are compared on the same hardware; scores on the same data. Where a score is among the numbers
    and its data is known, models are compared with each other; otherwise each only with itself. What was copied by hand
    is compared only within its team and table, never with what was measured.

    Args:
        row: of a comparison.
        groups: what the numbers are about, as their names begin: `size`, `cpu`, `gpu`, `quality`.
        score: the metric that stands for the row's quality, where that is not the same for all rows.
        against_originals: whether some number is a distance from the row's original, which says nothing about another
            model. The group of such a number is left out of `groups`.
    """
    about = sorted(set(groups))
    is_scored = QUALITY in about
    under = [row.circumstances.get(group, "") for group in about]
    if is_scored and row.circumstances.get(QUALITY) and not row.by_hand and not against_originals:
        whose = ("", "")
    else:
        whose = (row.team if row.by_hand or (is_scored and not against_originals) else "", row.model)
        under += [row.circumstances.get(f"{group}_work", "") for group in about]
    return (row.by_hand, row.table, *whose, score, *under)


def verdicts(
    keys: Sequence[Hashable | None],
    costs: Sequence[Sequence[float]],
    differ: Callable[[int, int, int, int], bool],
) -> list[tuple[bool, int] | None]:
    """Return of each row whether another one beats it, and the number of the group that it was compared with.

    Args:
        keys: what rows that may be compared have in common; None for a row that is not judged, whose verdict is None.
        costs: of each row its numbers, the less the better.
        differ: whether two rows, by their places, differ in a number by more than noise, as one of so many pairs.
    """
    groups: dict[Hashable, list[int]] = {}
    for at, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(at)
    judged: list[tuple[bool, int] | None] = [None] * len(keys)
    for number, places in enumerate(groups.values()):
        count = max(1, len(places) * (len(places) - 1) // 2)

        def apart(one: int, other: int, objective: int, places: list[int] = places, count: int = count) -> bool:
            return differ(places[one], places[other], objective, count)

        for at, is_beaten in zip(places, beaten([costs[at] for at in places], apart), strict=True):
            judged[at] = (is_beaten, number)
    return judged


def beaten(
    costs: Sequence[Sequence[float]], differ: Callable[[int, int, int], bool] = lambda one, other, number: True
) -> list[bool]:
    """Return of each point whether another one is as good in every number, and better in one.

    Args:
        costs: of each point its numbers, the less the better; none is NaN.
        differ: whether two points, by their places, differ in a number by more than noise. One that is better only by
            noise beats none.
    """
    front: list[int] = []
    rest: list[int] = []
    is_beaten = [False] * len(costs)

    def beats(one: int, other: int) -> bool:
        pairs = list(zip(costs[one], costs[other], strict=True))
        return all(a <= b for a, b in pairs) and any(
            a < b and differ(one, other, number) for number, (a, b) in enumerate(pairs)
        )

    for at in sorted(range(len(costs)), key=lambda at: tuple(costs[at])):
        # What beats a point comes before it in this order, and is mostly on the front; within noise not always.
        is_beaten[at] = any(beats(other, at) for other in front) or any(beats(other, at) for other in rest)
        (rest if is_beaten[at] else front).append(at)
    return is_beaten
