"""Compare with ultralytics' validator on the same boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import DetMetrics, ap_per_class

from mlflow_compress import registry
from mlflow_compress.scoring import bootstrap, statistics_file
from mlflow_compress.sockets import PooledMetric

NAMES = ("box_precision", "box_recall", "map50", "map50_95")
CLASSES = 5


def images(seed: int, count: int = 30) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Create true boxes and predictions: some correct, some shifted, some of the wrong class, some of nothing."""
    generator = np.random.default_rng(seed)
    references, predictions = [], []
    for index in range(count):
        true = 0 if index % 7 == 3 else int(generator.integers(1, 6))
        corners = generator.uniform(0, 80, (true, 2))
        boxes = np.hstack([corners, corners + generator.uniform(8, 40, (true, 2))]).astype(np.float32)
        labels = generator.integers(0, CLASSES - 1, true)  # one class has no true box
        noise = generator.normal(0, generator.choice([0.3, 2, 6]), boxes.shape)
        predicted = np.vstack([boxes + noise, boxes + noise * 3, generator.uniform(0, 90, (2, 4))]).astype(np.float32)
        predicted[:, 2:] = np.maximum(predicted[:, 2:], predicted[:, :2] + 1)
        guesses = np.concatenate([labels, labels, generator.integers(0, CLASSES, 2)])
        guesses[generator.random(len(guesses)) < 0.2] = CLASSES - 1
        scores = generator.choice(np.linspace(0.01, 0.99, 40), len(predicted)).astype(np.float32)  # some are equal
        keep = slice(None) if index % 5 else slice(0, 0)
        order = np.argsort(-scores[keep], kind="stable")
        references.append({"boxes": boxes.tolist(), "labels": labels.tolist()})
        predictions.append(
            {
                "boxes": predicted[keep][order].tolist(),
                "labels": guesses[keep][order].tolist(),
                "scores": scores[keep][order].tolist(),
            }
        )
    return references, predictions


def validated(references: list[dict[str, Any]], predictions: list[dict[str, Any]], folder: Path) -> list[float]:
    """Return the results of ultralytics' validator: precision, recall, mAP50 and mAP50-95."""
    validator = DetectionValidator(save_dir=folder, args={"plots": False, "mode": "val"})
    metrics = DetMetrics(dict(enumerate("abcde")))
    for index, (true, predicted) in enumerate(zip(references, predictions, strict=True)):
        labels = torch.tensor(true["labels"], dtype=torch.float32)
        batch = {"cls": labels, "bboxes": torch.tensor(true["boxes"], dtype=torch.float32).reshape(-1, 4)}
        pred = {
            "cls": torch.tensor(predicted["labels"], dtype=torch.float32),
            "conf": torch.tensor(predicted["scores"], dtype=torch.float32),
            "bboxes": torch.tensor(predicted["boxes"], dtype=torch.float32).reshape(-1, 4),
        }
        is_empty = not len(pred["cls"])
        metrics.update_stats(
            {
                **validator._process_batch(pred, batch),
                "target_cls": labels.numpy(),
                "target_img": np.unique(labels.numpy()),
                "conf": np.zeros(0) if is_empty else pred["conf"].numpy(),
                "pred_cls": np.zeros(0) if is_empty else pred["cls"].numpy(),
                "im_name": str(index),
            }
        )
    metrics.process()
    return [float(number) for number in metrics.mean_results()]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_validators_number(seed: int, tmp_path: Path) -> None:
    references, predictions = images(seed)
    expected = dict(zip(NAMES, validated(references, predictions, tmp_path), strict=True))
    scores = {name: registry.build("metrics", name).compute(references, predictions) for name in NAMES}
    assert scores == pytest.approx(expected, rel=1e-12)
    assert 0.02 < scores["map50_95"] < scores["map50"] < 1


def test_labels_may_be_names_and_boxes_in_any_order() -> None:
    references, predictions = images(0)
    with_names = [{**image, "labels": [f"class {label}" for label in image["labels"]]} for image in references]
    mixed = []
    for image in predictions:
        order = np.random.default_rng(1).permutation(len(image["scores"]))
        # different scores, so that the order is unique
        scores = [score + 1e-4 * index for index, score in enumerate(reversed(image["scores"]))][::-1]
        image["scores"] = scores
        shuffled = {key: [image[key][index] for index in order] for key in image}
        mixed.append({**shuffled, "labels": [f"class {label}" for label in shuffled["labels"]]})
    for name in NAMES:
        metric = registry.build("metrics", name)
        assert metric.compute(with_names, mixed) == pytest.approx(metric.compute(references, predictions), rel=1e-12)


def test_all_right_is_the_best_that_ultralytics_gives() -> None:
    references, _ = images(0)
    right = [{**image, "scores": [0.9] * len(image["labels"])} for image in references]
    assert registry.build("metrics", "map50_95").compute(references, right) == pytest.approx(0.995)
    assert registry.build("metrics", "box_precision").compute(references, right) == 1
    no_boxes: list[dict[str, Any]] = [{"boxes": [], "labels": [], "scores": []} for _ in references]
    for name in ("map50", "map50_95", "box_recall"):
        assert registry.build("metrics", name).compute(references, no_boxes) == 0


def test_what_is_no_box_is_reported() -> None:
    metric = registry.build("metrics", "map50")
    none: dict[str, Any] = {"boxes": [], "labels": []}
    one_box = {"boxes": [[0, 0, 1, 1]], "labels": [0]}
    with pytest.raises(ValueError, match="no true box"):
        metric.compute([none], [{**one_box, "scores": [0.5]}])
    with pytest.raises(ValueError, match="1 boxes, 1 labels and 0 scores"):
        metric.compute([one_box], [{**one_box, "scores": []}])
    with pytest.raises(ValueError, match="finite"):
        metric.compute([one_box], [{"boxes": [[0, 0, float("inf"), 1]], "labels": [0], "scores": [0.5]}])


def metric_of(name: str) -> PooledMetric:
    metric = registry.build("metrics", name)
    assert isinstance(metric, PooledMetric)
    return metric


@pytest.mark.parametrize("seed", range(4))
def test_drawn_images_make_what_ultralytics_makes_of_their_boxes(seed: int) -> None:
    """Repeat each image's boxes as often as it is drawn, and pass them to ultralytics."""
    items = metric_of("map50").items(*images(seed))
    generator = np.random.default_rng(seed)
    draws = [np.bincount(generator.integers(0, 30, 30), minlength=30) for _ in range(8)]
    draws.append(np.bincount([3, 3, 7], minlength=30))
    summarize = metric_of("map50").summarizer(items)
    for times in draws:
        true, predicted = (items[items[:, 1] == kind] for kind in (1, 2))
        true, predicted = (np.repeat(boxes, times[boxes[:, 0].astype(int)], axis=0) for boxes in (true, predicted))
        matches = predicted[:, 4].astype(int)[:, None] >> np.arange(10) & 1
        # strictly decreasing: numpy's sort does not keep the order of equal scores
        results = ap_per_class(matches, predicted[:, 3], predicted[:, 2], true[:, 2])
        summary = summarize(times)
        np.testing.assert_allclose(summary.average_precision, results[5], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(summary.precision, results[2], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(summary.recall, results[3], rtol=1e-9, atol=1e-12)


def test_a_detector_has_intervals_and_is_paired_image_by_image() -> None:
    references, predictions = images(0, 60)
    metrics = {name: metric_of(name) for name in NAMES}
    scored = bootstrap.score(metrics, references, predictions, seed=0)
    worse_boxes = [image if index % 3 else {**image, "boxes": [], "scores": [], "labels": []}
                   for index, image in enumerate(predictions)]  # fmt: skip
    worse_scores = bootstrap.score(metrics, references, worse_boxes, seed=0)
    assert set(scored.statistics()) == {"boxes"}  # one table for all of them
    changed, original = worse_scores.statistics()["boxes"], scored.statistics()["boxes"]
    for name, metric in metrics.items():
        score = scored.by_name[name]
        assert score.low is not None
        assert score.high is not None
        assert score.low < score.value < score.high
        difference, low, high = bootstrap.paired(changed, original, metric, seed=0)
        assert difference == worse_scores.by_name[name].value - score.value
        assert bootstrap.paired(original, original, metric, seed=0) == (0, 0, 0)
        assert low is not None
        assert high is not None
        assert low <= difference <= high
        if name == "map50":
            assert high < 0  # a third of all boxes is missing
            assert high - low < score.high - score.low  # images that are hard for both do not widen it


def test_the_interval_is_that_of_the_metric_made_anew_of_drawn_images() -> None:
    references, predictions = images(1, 40)
    metric = metric_of("map50")
    score = bootstrap.score({"map50": metric}, references, predictions, seed=5).by_name["map50"]
    generator = np.random.default_rng(11)
    draws = [generator.integers(0, 40, 40) for _ in range(150)]
    values = [metric.compute([references[i] for i in indices], [predictions[i] for i in indices]) for indices in draws]
    spread = float(np.std(values))
    assert score.low is not None
    assert score.high is not None
    assert score.high - score.low == pytest.approx(2 * 1.96 * spread, rel=0.25)


def test_few_images_have_a_difference_without_an_interval() -> None:
    references, predictions = images(2, 9)
    metric = metric_of("map50_95")
    scored = bootstrap.score({"map50_95": metric}, references, predictions, seed=0)
    assert scored.by_name["map50_95"].low is None
    no_boxes: list[dict[str, Any]] = [{"boxes": [], "labels": [], "scores": []} for _ in references]
    without_boxes = bootstrap.score({"map50_95": metric}, references, no_boxes, seed=0)
    difference = bootstrap.paired(without_boxes.statistics()["boxes"], scored.statistics()["boxes"], metric, seed=0)
    assert difference == (-scored.by_name["map50_95"].value, None, None)
    of_more_images = statistics_file.Statistics(metric.items(*images(2, 10)))
    with pytest.raises(ValueError, match="can't be paired"):
        bootstrap.paired(of_more_images, scored.statistics()["boxes"], metric, seed=0)
