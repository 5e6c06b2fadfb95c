"""Labels of classes: those of the data as the model calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mlflow_compress.data.datasets import Row
from mlflow_compress.errors import RecipeError

_TOLD = 10  # labels that a message lists: some models have thousands


def labels_of(rows: Sequence[Row], names: Mapping[int, str]) -> list[str]:
    """Return the labels of rows as the model calls them: all are names of its labels, in any case, or all are numbers.

    Raises:
        RecipeError: they are neither.
    """
    by_name = {name: name for name in names.values()}
    by_lower = {name.lower(): name for name in names.values()}
    by_number = {str(number): name for number, name in names.items()}
    given = [str(row.values["label"]) for row in rows]
    for known, asked in ((by_name, given), (by_lower, [each.lower() for each in given]), (by_number, given)):
        if all(each in known for each in asked):
            return [known[each] for each in asked]
    known = by_name if given[0] in by_name else by_number
    row, label = next((row, each) for row, each in zip(rows, given, strict=True) if each not in known)
    raise RecipeError(
        f"{row.where}: the label {label!r} is none of the model's, which are {listed(by_name)} "
        f"(or {listed(by_number)}). Say which is which: labels={label}=LABEL|..."
    )


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Tell classes of one name apart by their numbers: ImageNet has two cranes, `crane (134)` and `crane (517)`."""
    counts = Counter(names.values())
    return {number: name if counts[name] == 1 else f"{name} ({number})" for number, name in names.items()}


def listed(names: Mapping[str, str]) -> str:
    """Return the first names, and how many there are where that is not all."""
    first = ", ".join(list(names)[:_TOLD])
    return first if len(names) <= _TOLD else f"{first}, ... ({len(names)} in all)"
