"""Labels of classes: map the labels of data to those of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mlflow_compress.data.datasets import Row
from mlflow_compress.data.label_forms import in_any_case, in_words, truth, unambiguous, whole_number
from mlflow_compress.errors import RecipeError

_TWO = 2  # classes: their labels may be true and false
_SHOWN = 10  # labels in a message: some models have thousands


def labels_of(rows: Sequence[Row], names: Mapping[int, str]) -> list[str]:
    """Return the model's names for the labels of rows, which must be all names or all numbers.

    Names may differ in case and in the separator of words (a blank, `_` or `-`). Numbers may be written as 1.0; two
    classes may be written as true and false.

    Raises:
        RecipeError: they are neither.
    """
    by_name = {name: name for name in names.values()}
    by_number = {str(number): name for number, name in names.items()}
    labels = [str(row.values["label"]) for row in rows]
    numbers = [_number(label, len(names)) for label in labels]
    by_case, by_words = (unambiguous({name: form(name) for name in by_name}) for form in (in_any_case, in_words))
    readings = (
        (by_name, labels),
        (by_case, list(map(in_any_case, labels))),
        (by_words, list(map(in_words, labels))),
        (by_name, list(map(whole_number, labels))),  # names that are numbers, as 5.0 for 5
        (by_number, numbers),
    )
    for by_spelling, spellings in readings:
        if all(spelling in by_spelling for spelling in spellings):
            return [by_spelling[spelling] for spelling in spellings]
    is_named = in_words(labels[0]) in by_words
    row, label = next(
        (row, label)
        for row, label, number in zip(rows, labels, numbers, strict=True)
        if (in_words(label) not in by_words if is_named else number not in by_number)
    )
    raise RecipeError(
        f"{row.where}: the label {label!r} is not one of the model's: {listed(by_name)} "
        f"(or {listed(by_number)}). Map yours to the model's: labels={label}=LABEL|..."
    )


def _number(label: str, classes: int) -> str:
    return truth(label) if classes == _TWO else whole_number(label)


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Add numbers to names that several classes share: ImageNet has two cranes, `crane (134)` and `crane (517)`."""
    counts = Counter(names.values())
    return {number: name if counts[name] == 1 else f"{name} ({number})" for number, name in names.items()}


def listed(names: Mapping[str, str]) -> str:
    """Return the first names, and the number of names if there are more."""
    first = ", ".join(list(names)[:_SHOWN])
    return first if len(names) <= _SHOWN else f"{first}, ... ({len(names)} in all)"
