from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn

from mlflow_compress import registry

CASES: list[tuple[list[Any], list[Any]]] = [
    ([0, 1, 2, 2, 1, 0, 0], [0, 2, 2, 2, 1, 1, 0]),
    ([0, 0, 0], [1, 2, 0]),  # predicted classes that no reference has
    ([0, 1, 2], [0, 0, 0]),  # classes that are never predicted
    (["cat", "dog", "cat"], ["cat", "cow", "dog"]),
    ([1], [0]),
    ([5, 5], [5, 5]),
    ([True, False, True], [True, True, False]),
]
BINARY = [([0, 1, 1, 0, 1], [1, 1, 0, 0, 1]), ([0, 0, 1], [0, 0, 0]), ([1, 1], [1, 1]), ([0, 1], [1, 0])]
SCORES = {"precision": sklearn.precision_score, "recall": sklearn.recall_score, "f1": sklearn.f1_score}


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("references", "predictions"), CASES)
def test_it_is_scikit_learns_number(references: list[Any], predictions: list[Any], name: str, average: str) -> None:
    score = registry.build("metrics", name, {"average": average}).compute(references, predictions)
    assert score == pytest.approx(SCORES[name](references, predictions, average=average, zero_division=0), abs=1e-15)


@pytest.mark.parametrize("name", SCORES)
def test_it_is_scikit_learns_number_for_many_classes(name: str) -> None:
    generator = np.random.default_rng(0)
    references = generator.integers(0, 12, 300)
    predictions = np.where(generator.random(300) < 0.6, references, generator.integers(0, 15, 300))
    for average in ("macro", "micro", "weighted"):
        score = registry.build("metrics", name, {"average": average}).compute(references, predictions)
        expected = SCORES[name](references, predictions, average=average, zero_division=0)
        assert score == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("references", "predictions"), BINARY)
def test_of_two_classes_one_may_be_the_positive(references: list[Any], predictions: list[Any], name: str) -> None:
    score = registry.build("metrics", name, {"average": "binary"}).compute(references, predictions)
    assert score == pytest.approx(SCORES[name](references, predictions, zero_division=0), abs=1e-15)
    names = {0: "bad", 1: "good"}
    metric = registry.build("metrics", name, {"average": "binary", "positive": "good"})
    assert metric.compute([names[label] for label in references], [names[label] for label in predictions]) == score


@pytest.mark.parametrize(("references", "predictions"), [([0, 1, 2], [0, 1, 1]), (["a", "b"], ["b", "a"]), ([0], [0])])
def test_a_positive_class_needs_two_classes_and_its_name(references: list[Any], predictions: list[Any]) -> None:
    with pytest.raises(ValueError, match="positive=LABEL"):
        registry.build("metrics", "f1", {"average": "binary"}).compute(references, predictions)


@pytest.mark.parametrize(("references", "predictions"), CASES)
def test_accuracy_is_scikit_learns(references: list[Any], predictions: list[Any]) -> None:
    score = registry.build("metrics", "accuracy").compute(references, predictions)
    assert score == sklearn.accuracy_score(references, predictions)
    ranked = [[label, "another"] for label in predictions]
    assert registry.build("metrics", "accuracy").compute(references, ranked) == score


def test_the_best_of_a_ranking_is_the_answer() -> None:
    assert registry.build("metrics", "accuracy").compute([1, 0], [[1, 0], [1, 0]]) == 0.5
    assert registry.build("metrics", "f1", {"average": "micro"}).compute([1, 0], [[1, 0], (1, 0)]) == 0.5


def test_references_that_are_lists_are_compared_whole() -> None:
    assert registry.build("metrics", "accuracy").compute([[1, 2], [3]], [[1, 2], [4]]) == 0.5


def test_top5_is_scikit_learns() -> None:
    generator = np.random.default_rng(1)
    scores = generator.random((200, 12))
    references = generator.integers(0, 12, 200)
    ranked = [list(np.argsort(-row)) for row in scores]
    score = registry.build("metrics", "top5_accuracy").compute(references, ranked)
    assert score == sklearn.top_k_accuracy_score(references, scores, k=5)


def test_top5_needs_rankings() -> None:
    with pytest.raises(ValueError, match="lists of labels"):
        registry.build("metrics", "top5_accuracy").compute([1], [1])
    with pytest.raises(ValueError, match="no label"):
        registry.build("metrics", "accuracy").compute([1], [[]])


def test_numpys_labels_are_pythons() -> None:
    metric = registry.build("metrics", "f1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.compute(np.array([1, 0, 1]), [1, 0, 0]) == metric.compute([1, 0, 1], np.array([1, 0, 0]))
    assert metric.columns(np.array([1]), [0]) == metric.columns([1], np.array([0]))


@pytest.mark.parametrize("reference", [{"boxes": []}, [{"label": "face", "box": [0, 0, 1, 1]}]])
@pytest.mark.parametrize("name", ["accuracy", "f1", "precision"])
def test_boxes_are_not_labels(reference: Any, name: str) -> None:
    with pytest.raises(ValueError, match="map50_95"):
        registry.build("metrics", name).compute([reference], ["face"])
