"""Detection: match objects to true objects like ultralytics' validator, image by image.

The objects of an image are boxes here. Other modules match other shapes by their own overlap: masks, keypoints, rotated
boxes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

from mlflow_compress.records import Scale
from mlflow_compress.scoring.box_curves import THRESHOLDS, Curves, MatchedBoxes
from mlflow_compress.sockets import PooledMetric

_IMAGE, _TRUE, _FOUND = 0, 1, 2
_BITS = tuple(1 << threshold for threshold in range(THRESHOLDS))


@dataclass
class BoxMetric(PooledMetric):
    """A mean over the classes with true boxes, computed from the boxes of all images together.

    Predictions must contain all boxes with a score above about 0.001, after non-maximum suppression, at most 300 per
    image, as in ultralytics' `val`. pycocotools gives slightly different numbers.

    Source: ultralytics' match_predictions and ap_per_class.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    pool: ClassVar[str] = "boxes"
    takes: ClassVar[Literal["boxes", "masks", "keypoints", "rotated_boxes"]] = "boxes"

    def shapes(self, image: Mapping[str, Any]) -> Any:
        """Return the shapes of an image's objects: an array, one entry for each object.

        Raises:
            ValueError: they are not valid.
        """
        import numpy as np

        boxes = np.asarray(image["boxes"], dtype=np.float32).reshape(-1, 4)
        if not np.isfinite(boxes).all():
            raise ValueError("a box is not four finite numbers")
        return boxes

    def overlap(self, true: Any, predicted: Any, image: Mapping[str, Any]) -> Any:
        """Return how much shapes overlap, from 0 to 1: a tensor [true objects, predicted objects].

        Args:
            true: Shapes of the true objects.
            predicted: Shapes of the predicted objects.
            image: The reference of the image.
        """
        import torch
        from ultralytics.utils.metrics import box_iou

        return box_iou(torch.from_numpy(true), torch.from_numpy(predicted))

    @abstractmethod
    def of_classes(self, curves: Curves) -> Any:
        """Return the number of each class."""

    def items(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Match the boxes of each image.

        Returns:
            An array [items, 5]: index of the image, kind of the item (0 an image, 1 a true box, 2 a predicted box),
            number of its class, its score, and the thresholds at which it is correct, as bits. Predicted boxes are in
            ultralytics' order: the best first.

        Raises:
            ValueError: there is no true object, or some object is not a valid shape with a label (and a score).
        """
        import numpy as np

        numbers: dict[Any, int] = {}
        true = [self._read(image, numbers, scored=False) for image in references]
        predicted = [self._read(image, numbers, scored=True) for image in predictions]
        if not any(len(image.labels) for image in true):
            raise ValueError("there is no true box in any image: mAP, precision and recall are not defined")
        matches = np.concatenate([self._matches(*image) for image in zip(true, predicted, references, strict=True)])
        # as in ultralytics, an image without boxes adds float64 zeros, which changes how numpy sorts equal scores
        scores = np.concatenate([image.scores if len(image.scores) else np.zeros(0) for image in predicted])
        order = np.argsort(-scores)
        images = np.arange(len(references))
        blank = np.zeros(len(images))
        of_true = np.repeat(images, [len(image.labels) for image in true])
        of_found = np.repeat(images, [len(image.labels) for image in predicted])
        true_labels, labels = (np.concatenate([image.labels for image in side]) for side in (true, predicted))
        no_score = np.zeros(len(of_true))
        return np.concatenate(
            [
                np.stack([images, blank + _IMAGE, blank, blank, blank], axis=1),
                np.stack([of_true, no_score + _TRUE, true_labels, no_score, no_score], axis=1),
                np.stack([of_found, np.full(len(of_found), _FOUND), labels, scores, matches @ _BITS], axis=1)[order],
            ],
            dtype=np.float64,
        )

    def summarizer(self, items: Any) -> Callable[[Any], Curves]:
        """Return the function that computes the curves of drawn images (see `PooledMetric.summarizer`)."""
        import numpy as np

        true, predicted = items[items[:, 1] == _TRUE], items[items[:, 1] == _FOUND]
        is_right = predicted[:, 4].astype(np.int64)[:, None] & np.array(_BITS) > 0
        return MatchedBoxes(
            true[:, 0].astype(np.int64),
            true[:, 2],
            predicted[:, 0].astype(np.int64),
            predicted[:, 2],
            predicted[:, 3],
            is_right,
        ).curves

    def pick(self, summary: Curves) -> float:
        """Return the mean over classes; NaN if no drawn image has a true box."""
        numbers = self.of_classes(summary)
        return float(numbers.mean()) if len(numbers) else float("nan")

    def _read(self, image: Mapping[str, Any], numbers: dict[Any, int], scored: bool) -> Any:
        """Return the objects of an image as arrays, best first; labels as numbers, which are added to `numbers`."""
        import numpy as np

        names = [label.item() if hasattr(label, "item") else label for label in image["labels"]]
        shapes = self.shapes(image)
        scores = np.asarray(image["scores"] if scored else np.ones(len(names)), dtype=np.float32)
        if not len(shapes) == len(names) == len(scores):
            raise ValueError(f"{len(shapes)} {self.pool}, {len(names)} labels and {len(scores)} scores in an image")
        if not np.isfinite(scores).all():
            raise ValueError("a score is not a finite number")
        labels = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.float32)
        order = np.argsort(-scores, kind="stable")
        return SimpleNamespace(shapes=shapes[order], labels=labels[order], scores=scores[order])

    def _matches(self, true: Any, predicted: Any, image: Mapping[str, Any]) -> Any:
        """Return for each predicted object the thresholds at which it matches a true one: [objects, 10]."""
        import numpy as np
        import torch
        from ultralytics.engine.validator import BaseValidator

        thresholds = torch.linspace(0.5, 0.95, THRESHOLDS)
        if not len(true.labels) or not len(predicted.labels):
            return np.zeros((len(predicted.labels), len(thresholds)), dtype=bool)
        overlap = self.overlap(true.shapes, predicted.shapes, image)
        validator: Any = SimpleNamespace(iouv=thresholds)  # the only attribute that the method uses
        return BaseValidator.match_predictions(
            validator, torch.from_numpy(predicted.labels), torch.from_numpy(true.labels), overlap
        ).numpy()
