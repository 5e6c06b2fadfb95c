"""Correlation of predicted numbers with true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def number_pairs(references: Sequence[Any], predictions: Sequence[Any]) -> Any:
    """Return true and predicted numbers: an array [samples, 2] of float64.

    Raises:
        ValueError: one of them is not a finite number.
    """
    import numpy as np

    try:
        pairs = np.array([(float(one), float(two)) for one, two in zip(references, predictions, strict=True)])
    except (TypeError, ValueError) as error:
        raise ValueError(f"a reference or a prediction is not a number: {error}") from error
    if not np.isfinite(pairs).all():
        raise ValueError("a reference or a prediction is not a finite number")
    return pairs.reshape(-1, 2)


def require_spread(references: Sequence[Any]) -> None:
    """Check that true numbers can correlate with others.

    Raises:
        ValueError: one is not a finite number, or all are equal.
    """
    if len({true for true, _ in number_pairs(references, references)}) == 1:
        raise ValueError("all true values are equal")


class Ranks:
    """Numbers, ranked by value; equal ones share the mean of their ranks.

    Args:
        values: the numbers [samples].
    """

    def __init__(self, values: Any) -> None:
        import numpy as np

        _, self._group = np.unique(values, return_inverse=True)

    def of(self, times: Any) -> Any:
        """Return the rank of each number [samples] if each occurs the given number of times [samples]."""
        import numpy as np

        sizes = np.bincount(self._group, weights=times)
        return (np.cumsum(sizes) - (sizes - 1) / 2)[self._group]


def correlation(first: Any, second: Any, weights: Any) -> float:
    """Return Pearson's correlation of numbers [samples] with weights [samples]; NaN if one side is constant."""
    import numpy as np

    total = weights.sum()
    one, two = (values - (weights * values).sum() / total for values in (first, second))
    spread = np.sqrt((weights * one * one).sum() * (weights * two * two).sum())
    return float((weights * one * two).sum() / spread) if spread > 0 else float("nan")
