"""Labels of classes: map the labels of data to those of the model."""

from __future__ import annotations

import unicodedata

import pytest

from mlflow_compress.data.datasets import Row
from mlflow_compress.data.labels import distinct, labels_of, listed
from mlflow_compress.errors import RecipeError

NAMES = {0: "NEGATIVE", 1: "POSITIVE"}


def rows(*labels: object) -> list[Row]:
    return [Row({"label": label}, f"a.csv, row {number}") for number, label in enumerate(labels, 2)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["POSITIVE", "NEGATIVE"], ["POSITIVE", "NEGATIVE"]),
        (["positive", "Negative"], ["POSITIVE", "NEGATIVE"]),
        ([1, "0"], ["POSITIVE", "NEGATIVE"]),
        ([1.0, "0.0"], ["POSITIVE", "NEGATIVE"]),
        ([True, False], ["POSITIVE", "NEGATIVE"]),
        (["true", "FALSE"], ["POSITIVE", "NEGATIVE"]),
        ([" positive ", "negative"], ["POSITIVE", "NEGATIVE"]),
    ],
)
def test_labels_are_names_in_any_case_or_numbers(labels: list[object], expected: list[str]) -> None:
    assert labels_of(rows(*labels), NAMES) == expected


@pytest.mark.parametrize(
    ("labels", "place"),
    [(["POSITIVE", 1], "row 3: the label '1'"), ([0, 2], "row 3: the label '2'"), ([0, 0.5], "row 3: the label '0.5'")],
)
def test_unknown_labels_are_reported_with_their_row(labels: list[object], place: str) -> None:
    with pytest.raises(RecipeError, match=f"{place} is not one of the model's: NEGATIVE, POSITIVE"):
        labels_of(rows(*labels), NAMES)


def test_a_name_that_is_a_number_is_a_name_first() -> None:
    assert labels_of(rows("1", "2"), {0: "1", 1: "2"}) == ["1", "2"]


def test_a_name_that_is_a_number_is_one_with_a_decimal_point_too() -> None:
    stars = {number: str(number + 1) for number in range(5)}
    assert labels_of(rows(1.0, "5.0"), stars) == ["1", "5"]
    assert labels_of(rows(0.0, 4.0), stars) == ["1", "5"]


def test_true_and_false_are_not_numbers_of_many_classes() -> None:
    with pytest.raises(RecipeError, match=r"row 2: the label 'True'"):
        labels_of(rows(True, False), {0: "a", 1: "b", 2: "c"})


@pytest.mark.parametrize("labels", ["red_fox", "red-fox", "Red Fox", "RED  FOX"])
def test_separators_of_words_do_not_matter(labels: str) -> None:
    assert labels_of(rows(labels), {0: "red fox", 1: "dog"}) == ["red fox"]
    assert labels_of(rows("red fox"), {0: "red_fox", 1: "redfox"}) == ["red_fox"]


def test_similar_names_must_match_exactly() -> None:
    names = {0: "t-shirt", 1: "t_shirt", 2: "T-Shirt"}
    assert labels_of(rows("T-Shirt", "t_shirt"), names) == ["T-Shirt", "t_shirt"]
    with pytest.raises(RecipeError, match="the label 't shirt'"):
        labels_of(rows("t shirt"), names)


def test_decomposed_letters_of_macos_match() -> None:
    names = {0: "йод", 1: "ёж"}
    assert labels_of(rows(*(unicodedata.normalize("NFD", name) for name in names.values())), names) == ["йод", "ёж"]


def test_classes_of_one_name_are_distinguished() -> None:
    assert distinct({0: "crane", 1: "dog", 2: "crane"}) == {0: "crane (0)", 1: "dog", 2: "crane (2)"}


def test_only_the_first_of_many_names_are_listed() -> None:
    assert listed(dict.fromkeys("abc", "")) == "a, b, c"
    assert listed({str(number): "" for number in range(12)}) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (12 in all)"
