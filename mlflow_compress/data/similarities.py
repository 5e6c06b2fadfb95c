"""True similarities of pairs of texts: finite numbers that are not all the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlflow_compress.data.media import ADVICE
from mlflow_compress.errors import RecipeError


def require_number(value: Any, location: str) -> None:
    """Check that a similarity is a finite number.

    Raises:
        RecipeError: it is not.
    """
    try:
        is_number = math.isfinite(float(value))
    except (OverflowError, TypeError, ValueError):
        is_number = False
    if not is_number:
        raise RecipeError(f"{location}: the similarity {value!r:.60} is not a number. {ADVICE}")


def require_different(values: Sequence[Any], data: str) -> None:
    """Check that similarities differ: a correlation with equal numbers is not defined.

    Raises:
        RecipeError: they are all the same.
    """
    numbers = {float(value) for value in values}
    if len(values) > 1 and len(numbers) == 1:
        raise RecipeError(
            f"{data}: the similarity of all {len(values)} pairs is {numbers.pop():g}, and a correlation needs "
            "different ones. Check the column, or score more pairs."
        )
