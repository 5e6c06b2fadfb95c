"""The parts of a model's raw output, each compared by itself: what is large in one must not hide what others lost.

Boxes in pixels drown scores: over both, a detector that has lost all its detections is 0.01 % from its original.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_compress.networks.stored_weights import distance, flat
from mlflow_compress.sockets import Family, Model


def parts_of(family: Family, model: Model, batch: Any) -> list[tuple[Any, float]]:
    """Make a forward pass.

    Returns:
        Of each part a vector of float32 on the CPU, and the least norm that a difference is divided by.

    Raises:
        ArithmeticError: one holds NaN or infinity.
    """
    return [(flat(part), least) for part, least in family.parts(model, family.forward(model, batch))]


def farthest(own: Sequence[Any], other: Sequence[Any], least: Sequence[float]) -> float:
    """Return how far the part is that differs most: the 2-norm of the difference over that of the other.

    Infinite where they have other parts, or parts of another shape; NaN where there is nothing to compare, or a number
    is none.

    Args:
        own: the parts.
        other: those that they are compared with.
        least: the least norm that a difference is divided by, of each.
    """
    if len(own) != len(other) or any(one.shape != two.shape for one, two in zip(own, other, strict=True)):
        return float("inf")
    moved = []
    for one, two, norm in zip(own, other, least, strict=True):
        if one.numel():
            apart, whole = float((one - two).norm()), float(two.norm())
            moved.append(apart / norm if whole < norm else distance(one, two))
    if not moved or any(each != each for each in moved):
        return float("nan")
    return max(moved)
