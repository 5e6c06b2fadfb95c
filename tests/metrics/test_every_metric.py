"""Properties of all metrics: sums of parts give the whole, and a missing value raises an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlflow_compress import registry
from mlflow_compress.sockets import AdditiveMetric, Metric

pytestmark = pytest.mark.full

TEXTS = (
    ["the colour of two cats", "Hello, world!", "", "Ünïcode text ", "a man's 1,000 dollars", "so it goes"],
    ["The color of 2 cats", "hello word", "some noise", "", "a mans $1000", "so it goes"],
)


def mask(left: int, top: int, right: int, bottom: int) -> Any:
    """Return a mask of 20 by 20 pixels with a rectangle."""
    pixels = np.zeros((20, 20), dtype=bool)
    pixels[top:bottom, left:right] = True
    return pixels


INPUTS: dict[str, tuple[list[Any], list[Any]]] = {
    "labels": ([0, 1, 2, 1, 0, 3], [[0, 1, 2], [0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0], [1, 2, 0]]),
    "scores": (
        ["a", "b", "c", "b", "a", "c"],
        [
            dict(zip("abcde", shares, strict=True))
            for shares in (
                (0.5, 0.2, 0.1, 0.1, 0.1),
                (0.1, 0.6, 0.1, 0.1, 0.1),
                (0.4, 0.1, 0.2, 0.2, 0.1),
                (0.3, 0.05, 0.4, 0.15, 0.1),
                (0.7, 0.1, 0.1, 0.05, 0.05),
                (0.1, 0.4, 0.2, 0.2, 0.1),
            )
        ],
    ),
    "texts": TEXTS,
    "tags": (
        [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["O"], ["B-ORG", "I-ORG"], ["B-PER", "O"], ["O", "O"]],
        [["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC"], ["O"], ["B-ORG", "O"], ["B-LOC", "O"], ["O", "B-PER"]],
    ),
    "likelihoods": (
        list(TEXTS[0]),
        [{"nll": 2.5 + n, "tokens": 3 + n, "right": n, "words": 2 + n % 3, "bytes": 11 + 2 * n} for n in range(6)],
    ),
    "numbers": ([0.5, 1.0, 2.5, 2.5, 4.0, 5.0], [0.1, 0.3, 0.2, 0.5, 0.4, 0.9]),
    "rankings": ([[0], [1, 2], [2], [3], [0, 4], [5]], [[1, 0], [2, 0], [0, 1], [3], [4, 0], [1, 2]]),
    "boxes": (
        [{"boxes": [[n, n, n + 10, n + 10]], "labels": ["cat" if n % 2 else "dog"]} for n in range(6)],
        [{"boxes": [[n, 0, n + 9, 12]], "labels": ["cat"], "scores": [0.1 * n + 0.1]} for n in range(6)],
    ),
    "masks": (
        [{"masks": [mask(n, n, n + 10, n + 10)], "labels": ["cat" if n % 2 else "dog"]} for n in range(6)],
        [{"masks": [mask(n, 0, n + 9, 12)], "labels": ["cat"], "scores": [0.1 * n + 0.1]} for n in range(6)],
    ),
    "keypoints": (
        [
            {
                "boxes": [[n, n, n + 10, n + 10]],
                "keypoints": [[[n, n, 2], [n + 9, n + 9, 2]]],
                "labels": ["cat" if n % 2 else "dog"],
            }
            for n in range(6)
        ],
        [{"keypoints": [[[n, n], [n + 5, n + 9]]], "labels": ["cat"], "scores": [0.1 * n + 0.1]} for n in range(6)],
    ),
    "rotated_boxes": (
        [{"rotated_boxes": [[20, 20, 10 + n, 8, 0.1 * n]], "labels": ["cat" if n % 2 else "dog"]} for n in range(6)],
        [{"rotated_boxes": [[20, 21, 11, 9, 0.2]], "labels": ["cat"], "scores": [0.1 * n + 0.1]} for n in range(6)],
    ),
    "pixels": (
        [{"pixels": np.arange(12).reshape(3, 4) % (2 + n % 2)} for n in range(6)],
        [{"pixels": np.arange(12).reshape(3, 4) % (1 + n % 3)} for n in range(6)],
    ),
}
SHAPES = ("boxes", "masks", "keypoints", "rotated_boxes")  # of objects, with labels and scores
ALL = registry.own("metrics")
ADDITIVE = [name for name in ALL if issubclass(registry.find("metrics", name), AdditiveMetric)]


def build(name: str) -> tuple[Metric, list[Any], list[Any]]:
    metric: Metric = registry.build("metrics", name)
    return metric, *INPUTS[metric.takes]


@pytest.mark.parametrize("name", ALL)
def test_it_gives_a_finite_number_and_says_by_which_protocol(name: str) -> None:
    metric, references, predictions = build(name)
    assert np.isfinite(metric.compute(references, predictions))
    assert len(metric.protocol) > 10
    assert "\n" not in metric.protocol
    assert "Source:" in (type(metric).__doc__ or "")


@pytest.mark.parametrize("name", ALL)
def test_what_is_right_scores_better_than_what_is_not(name: str) -> None:
    metric, references, predictions = build(name)
    perfect: list[Any] = references
    if metric.takes == "labels":
        perfect = [[reference] for reference in references]
    elif metric.takes == "scores":
        perfect = [{label: float(label == reference) for label in "abcde"} for reference in references]
    elif metric.takes == "likelihoods":
        perfect = [{**reference, "nll": 0.0, "right": reference["tokens"]} for reference in predictions]
    elif metric.takes in SHAPES:
        perfect = [{**reference, "scores": [0.9]} for reference in references]
    better, worse = metric.compute(references, perfect), metric.compute(references, predictions)
    assert (better > worse) is metric.greater_is_better
    assert better != worse


@pytest.mark.parametrize("name", ALL)
def test_lengths_that_differ_and_nothing_at_all_raise(name: str) -> None:
    metric, references, predictions = build(name)
    for some_references, some_predictions in ((references, predictions[:-1]), (references[:-1], predictions), ([], [])):
        with pytest.raises(ValueError, match="can't be scored"):
            metric.compute(some_references, some_predictions)


@pytest.mark.parametrize("name", ADDITIVE)
def test_sums_of_parts_make_the_whole(name: str) -> None:
    metric, references, predictions = build(name)
    assert isinstance(metric, AdditiveMetric)
    statistics = metric.statistics(references, predictions)
    assert statistics.shape[0] == len(references)
    assert statistics.dtype == np.float64
    assert metric.reduce(statistics.sum(axis=0)) == metric.compute(references, predictions)
    names = metric.columns(references, predictions)
    assert len(names) in (0, statistics.shape[1])
    parts = np.zeros(statistics.shape[1])
    for part in (slice(0, 2), slice(2, 3), slice(3, None)):
        sums = metric.statistics(references[part], predictions[part]).sum(axis=0)
        columns = metric.columns(references[part], predictions[part])
        parts[[names.index(column) for column in columns] if names else slice(None)] += sums
    assert metric.reduce(parts) == pytest.approx(metric.compute(references, predictions), rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_a_number_raises(name: str) -> None:
    metric, references, predictions = build(name)
    invalid: Any = float("nan")
    if metric.takes == "likelihoods":
        invalid = {**predictions[0], "nll": float("nan")}
    elif metric.takes == "pixels":
        invalid = {"pixels": np.full((3, 4), np.nan)}
    elif metric.takes in SHAPES:
        invalid = {**predictions[0], "scores": [float("nan")]}
    elif metric.takes == "labels":
        invalid = [float("nan")]
    elif metric.takes == "scores":
        invalid = {"a": float("nan"), "b": 0.5, "c": 0.5}
    with pytest.raises((ValueError, TypeError)):
        metric.compute(references, [invalid, *predictions[1:]])
