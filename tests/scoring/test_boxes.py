"""Against ultralytics' own validator, given the same boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import DetMetrics

from mlflow_compress import registry

NAMES = ("box_precision", "box_recall", "map50", "map50_95")
CLASSES = 5


def images(seed: int, count: int = 30) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make true boxes, and predictions: some right, some shifted, some of the wrong class, some of nothing."""
    generator = np.random.default_rng(seed)
    references, predictions = [], []
    for index in range(count):
        true = 0 if index % 7 == 3 else int(generator.integers(1, 6))
        corners = generator.uniform(0, 80, (true, 2))
        boxes = np.hstack([corners, corners + generator.uniform(8, 40, (true, 2))]).astype(np.float32)
        labels = generator.integers(0, CLASSES - 1, true)  # one class has no true box
        noise = generator.normal(0, generator.choice([0.3, 2, 6]), boxes.shape)
        found = np.vstack([boxes + noise, boxes + noise * 3, generator.uniform(0, 90, (2, 4))]).astype(np.float32)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        guesses = np.concatenate([labels, labels, generator.integers(0, CLASSES, 2)])
        guesses[generator.random(len(guesses)) < 0.2] = CLASSES - 1
        scores = generator.choice(np.linspace(0.01, 0.99, 40), len(found)).astype(np.float32)  # some are equal
        keep = slice(None) if index % 5 else slice(0, 0)
        order = np.argsort(-scores[keep], kind="stable")
        references.append({"boxes": boxes.tolist(), "labels": labels.tolist()})
        predictions.append(
            {
                "boxes": found[keep][order].tolist(),
                "labels": guesses[keep][order].tolist(),
                "scores": scores[keep][order].tolist(),
            }
        )
    return references, predictions


def validated(references: list[dict[str, Any]], predictions: list[dict[str, Any]], folder: Path) -> list[float]:
    """Give what ultralytics' validator makes of the boxes: its precision, recall, mAP50 and mAP50-95."""
    validator = DetectionValidator(save_dir=folder, args={"plots": False, "mode": "val"})
    metrics = DetMetrics(dict(enumerate("abcde")))
    for index, (true, found) in enumerate(zip(references, predictions, strict=True)):
        labels = torch.tensor(true["labels"], dtype=torch.float32)
        batch = {"cls": labels, "bboxes": torch.tensor(true["boxes"], dtype=torch.float32).reshape(-1, 4)}
        pred = {
            "cls": torch.tensor(found["labels"], dtype=torch.float32),
            "conf": torch.tensor(found["scores"], dtype=torch.float32),
            "bboxes": torch.tensor(found["boxes"], dtype=torch.float32).reshape(-1, 4),
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
    return [float(each) for each in metrics.mean_results()]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_validators_number(seed: int, tmp_path: Path) -> None:
    references, predictions = images(seed)
    expected = dict(zip(NAMES, validated(references, predictions, tmp_path), strict=True))
    found = {name: registry.build("metrics", name).compute(references, predictions) for name in NAMES}
    assert found == pytest.approx(expected, rel=1e-12)
    assert 0.02 < found["map50_95"] < found["map50"] < 1


def test_labels_may_be_names_and_boxes_in_any_order() -> None:
    references, predictions = images(0)
    named = [{**each, "labels": [f"class {label}" for label in each["labels"]]} for each in references]
    mixed = []
    for each in predictions:
        order = np.random.default_rng(1).permutation(len(each["scores"]))
        # scores that differ, so that there is one order
        scores = [score + 1e-4 * index for index, score in enumerate(reversed(each["scores"]))][::-1]
        each["scores"] = scores
        shuffled = {key: [each[key][index] for index in order] for key in each}
        mixed.append({**shuffled, "labels": [f"class {label}" for label in shuffled["labels"]]})
    for name in NAMES:
        metric = registry.build("metrics", name)
        assert metric.compute(named, mixed) == pytest.approx(metric.compute(references, predictions), rel=1e-12)


def test_all_right_is_the_best_that_ultralytics_gives() -> None:
    references, _ = images(0)
    right = [{**each, "scores": [0.9] * len(each["labels"])} for each in references]
    assert registry.build("metrics", "map50_95").compute(references, right) == pytest.approx(0.995)
    assert registry.build("metrics", "box_precision").compute(references, right) == 1
    nothing: list[dict[str, Any]] = [{"boxes": [], "labels": [], "scores": []} for _ in references]
    for name in ("map50", "map50_95", "box_recall"):
        assert registry.build("metrics", name).compute(references, nothing) == 0


def test_what_is_no_box_is_told() -> None:
    metric = registry.build("metrics", "map50")
    none: dict[str, Any] = {"boxes": [], "labels": []}
    one = {"boxes": [[0, 0, 1, 1]], "labels": [0]}
    with pytest.raises(ValueError, match="no true box"):
        metric.compute([none], [{**one, "scores": [0.5]}])
    with pytest.raises(ValueError, match="1 boxes, 1 labels and 0 scores"):
        metric.compute([one], [{**one, "scores": []}])
    with pytest.raises(ValueError, match="finite"):
        metric.compute([one], [{"boxes": [[0, 0, float("inf"), 1]], "labels": [0], "scores": [0.5]}])
