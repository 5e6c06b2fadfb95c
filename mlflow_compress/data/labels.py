"""Labels of classes: those of the data as the model calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mlflow_compress.data.datasets import Row
from mlflow_compress.data.label_forms import in_any_case, in_words, told_apart, truth, whole_number
from mlflow_compress.errors import RecipeError

_TWO = 2  # classes that are called true and false
_TOLD = 10  # labels that a message lists: some models have thousands


def labels_of(rows: Sequence[Row], names: Mapping[int, str]) -> list[str]:
    """Return the labels of rows as the model calls them: all are names of its labels, or all are numbers.

    Names may differ in case, and in what stands between words (a blank, `_` or `-`). Numbers may be written as 1.0, and
    of two classes as true and false.

    Raises:
        RecipeError: they are neither.
    """
    by_name = {name: name for name in names.values()}
    by_number = {str(number): name for number, name in names.items()}
    given = [str(row.values["label"]) for row in rows]
    numbers = [_number(label, len(names)) for label in given]
    by_case, by_words = (told_apart({name: alike(name) for name in by_name}) for alike in (in_any_case, in_words))
    ways = (
        (by_name, given),
        (by_case, list(map(in_any_case, given))),
        (by_words, list(map(in_words, given))),
        (by_name, list(map(whole_number, given))),  # names that are numbers, as 5.0 for 5
        (by_number, numbers),
    )
    for known, asked in ways:
        if all(each in known for each in asked):
            return [known[each] for each in asked]
    is_named = in_words(given[0]) in by_words
    row, label = next(
        (row, label)
        for row, label, number in zip(rows, given, numbers, strict=True)
        if (in_words(label) not in by_words if is_named else number not in by_number)
    )
    raise RecipeError(
        f"{row.where}: the label {label!r} is none of the model's, which are {listed(by_name)} "
        f"(or {listed(by_number)}). Say which is which: labels={label}=LABEL|..."
    )


def _number(label: str, classes: int) -> str:
    return truth(label) if classes == _TWO else whole_number(label)


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Tell classes of one name apart by their numbers: ImageNet has two cranes, `crane (134)` and `crane (517)`."""
    counts = Counter(names.values())
    return {number: name if counts[name] == 1 else f"{name} ({number})" for number, name in names.items()}


def listed(names: Mapping[str, str]) -> str:
    """Return the first names, and how many there are where that is not all."""
    first = ", ".join(list(names)[:_TOLD])
    return first if len(names) <= _TOLD else f"{first}, ... ({len(names)} in all)"
