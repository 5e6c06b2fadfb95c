"""Detection: boxes matched to true boxes as ultralytics' validator does, and its curves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.sockets import Metric


@dataclass(frozen=True)
class Curves:
    """What ultralytics makes of matched boxes, for each class that has true boxes.

    Attributes:
        precision, recall: [classes], at the confidence where the mean F1 over classes is greatest.
        average_precision: [classes, 10], at intersection over union 0.5, 0.55, ... 0.95.
    """

    precision: Any
    recall: Any
    average_precision: Any


@dataclass
class BoxMetric(Metric):
    """A mean over the classes that have true boxes; not a sum over images, so it has no bootstrap interval.

    Predictions must hold all boxes with a score above about 0.001, after non-maximum suppression, 300 an image at most:
    ultralytics' `val` keeps these. pycocotools gives slightly different numbers.

    Source: ultralytics' match_predictions and ap_per_class.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    takes = "boxes"

    @abstractmethod
    def pick(self, curves: Curves) -> Any:
        """Return the number of each class."""

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Match the boxes of each image, and take the mean over classes (see `Metric.compute`)."""
        if not len(references) or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        return float(self.pick(curves(references, predictions)).mean())


def curves(references: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> Curves:
    """Match the boxes of all images, and make the curves.

    Raises:
        ValueError: there is no true box, or some box is not four numbers with a label (and a score).
    """
    import numpy as np
    from ultralytics.utils.metrics import ap_per_class

    place: dict[Any, int] = {}
    true = [_read(each, place, scored=False) for each in references]
    found = [_read(each, place, scored=True) for each in predictions]
    if not any(len(each.labels) for each in true):
        raise ValueError("there is no true box in any image: mAP, precision and recall are no numbers")
    matches = [_matches(one, other) for one, other in zip(true, found, strict=True)]
    # an image without boxes brings float64 zeros there too, which decides how numpy's sort orders equal scores
    scores = [each.scores if len(each.scores) else np.zeros(0) for each in found]
    _, _, precision, recall, _, average_precision, *_ = ap_per_class(
        np.concatenate(matches),
        np.concatenate(scores),
        np.concatenate([each.labels for each in found]),
        np.concatenate([each.labels for each in true]),
    )
    return Curves(precision, recall, average_precision)


def _read(image: Mapping[str, Any], place: dict[Any, int], scored: bool) -> Any:
    """Return the boxes of an image as arrays, best first; labels as numbers, which `place` remembers."""
    import numpy as np

    names = [label.item() if hasattr(label, "item") else label for label in image["labels"]]
    boxes = np.asarray(image["boxes"], dtype=np.float32).reshape(-1, 4)
    scores = np.asarray(image["scores"] if scored else np.ones(len(names)), dtype=np.float32)
    if not len(boxes) == len(names) == len(scores):
        raise ValueError(f"{len(boxes)} boxes, {len(names)} labels and {len(scores)} scores in an image")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("a box or a score is no finite number")
    labels = np.array([place.setdefault(name, len(place)) for name in names], dtype=np.float32)
    order = np.argsort(-scores, kind="stable")
    return SimpleNamespace(boxes=boxes[order], labels=labels[order], scores=scores[order])


def _matches(true: Any, found: Any) -> Any:
    """Say of each found box at which thresholds it matches a true one: [boxes, 10]."""
    import numpy as np
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import box_iou

    thresholds = torch.linspace(0.5, 0.95, 10)
    if not len(true.labels) or not len(found.labels):
        return np.zeros((len(found.labels), len(thresholds)), dtype=bool)
    overlap = box_iou(torch.from_numpy(true.boxes), torch.from_numpy(found.boxes))
    validator: Any = SimpleNamespace(iouv=thresholds)  # all that the method asks of one
    return BaseValidator.match_predictions(
        validator, torch.from_numpy(found.labels), torch.from_numpy(true.labels), overlap
    ).numpy()
