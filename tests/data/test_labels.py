"""Labels of classes: those of the data as the model calls them."""

from __future__ import annotations

import pytest

from mlflow_compress.data.datasets import Row
from mlflow_compress.data.labels import distinct, labels_of, listed
from mlflow_compress.errors import RecipeError

NAMES = {0: "NEGATIVE", 1: "POSITIVE"}


def rows(*labels: object) -> list[Row]:
    return [Row({"label": label}, f"a.csv, row {number}") for number, label in enumerate(labels, 2)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["POSITIVE", "NEGATIVE"], ["POSITIVE", "NEGATIVE"]),
        (["positive", "Negative"], ["POSITIVE", "NEGATIVE"]),
        ([1, "0"], ["POSITIVE", "NEGATIVE"]),
    ],
)
def test_labels_are_names_in_any_case_or_numbers(given: list[object], expected: list[str]) -> None:
    assert labels_of(rows(*given), NAMES) == expected


@pytest.mark.parametrize(
    ("given", "where"), [(["POSITIVE", 1], "row 3: the label '1'"), ([0, 2], "row 3: the label '2'")]
)
def test_a_label_that_is_none_of_the_models_is_told_with_its_row(given: list[object], where: str) -> None:
    with pytest.raises(RecipeError, match=f"{where} is none of the model's, which are NEGATIVE, POSITIVE"):
        labels_of(rows(*given), NAMES)


def test_a_name_that_is_a_number_is_a_name_first() -> None:
    assert labels_of(rows("1", "2"), {0: "1", 1: "2"}) == ["1", "2"]


def test_classes_of_one_name_are_told_apart() -> None:
    assert distinct({0: "crane", 1: "dog", 2: "crane"}) == {0: "crane (0)", 1: "dog", 2: "crane (2)"}


def test_of_many_names_the_first_are_listed() -> None:
    assert listed(dict.fromkeys("abc", "")) == "a, b, c"
    assert listed({str(number): "" for number in range(12)}) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (12 in all)"
