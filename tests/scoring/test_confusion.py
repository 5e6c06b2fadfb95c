from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.scoring.confusion import MOST_CLASSES, Confusion
from mlflow_compress.scoring.ranking_curves import curves_of

REFERENCES = ["cat", "cat", "dog", "cow", "dog", "cat"]
ANSWERS = ["cat", "dog", "dog", "cat", "dog", "cat"]


def test_counts_and_scores_of_classes_are_scikit_learns() -> None:
    confusion = Confusion.of(REFERENCES, ANSWERS)
    assert confusion is not None
    labels = ["cat", "cow", "dog"]
    matrix = np.zeros((3, 3), dtype=int)
    for true, answer, count in confusion.matrix()["data"]:
        matrix[labels.index(true), labels.index(answer)] = count
    assert np.array_equal(matrix, confusion_matrix(REFERENCES, ANSWERS, labels=labels))
    table = confusion.by_class()
    assert table["columns"] == ["class", "samples", "predicted", "precision", "recall", "f1"]
    expected = precision_recall_fscore_support(REFERENCES, ANSWERS, labels=labels, zero_division=0)
    for row, precision, recall, f1, samples in zip(table["data"], *expected, strict=True):
        assert row[1] == samples
        assert [value or 0 for value in row[3:]] == pytest.approx([precision, recall, f1])
    assert table["data"][1] == ["cow", 1, 0, None, 0.0, 0.0]


def test_areas_under_the_curves_are_added_where_probabilities_are_known() -> None:
    predictions = [{"cat": 0.9, "dog": 0.1}, {"cat": 0.4, "dog": 0.6}, {"cat": 0.5, "dog": 0.5}]
    references = ["cat", "dog", "cat"]
    confusion = Confusion.of(references, predictions)
    assert confusion is not None
    table = confusion.by_class(curves_of(ClassTable.of(references, predictions)))
    assert table["columns"][-2:] == ["roc_auc", "average_precision"]
    assert table["data"] == [["cat", 2, 2, 1.0, 1.0, 1.0, 1.0, 1.0], ["dog", 1, 1, 1.0, 1.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("references", "predictions"),
    [
        ([["O"]], [["O"]]),
        ([0.5, 1.5], [0.4, 1.4]),
        (list(range(MOST_CLASSES + 1)), [0] * (MOST_CLASSES + 1)),
        ([None], ["a"]),
        ([{"boxes": []}], [{"boxes": []}]),
    ],
)
def test_what_are_no_classes_has_no_matrix(references: list[object], predictions: list[object]) -> None:
    assert Confusion.of(references, predictions) is None


def test_labels_of_several_types_keep_their_order() -> None:
    confusion = Confusion.of(["b", 1, "a"], ["b", "a", 1])
    assert confusion is not None
    assert confusion.classes == ("b", 1, "a")
