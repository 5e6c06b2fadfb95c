"""Rotated boxes, matched by the overlap of the normal distributions that fit them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.boxes import BoxMetric


@dataclass
class RotatedBoxMetric(BoxMetric):
    """A mean over the classes of rotated boxes, which match by probabilistic intersection over union.

    An image maps `rotated_boxes` to the centre's x and y, width, height and angle (in radians) of each box.

    Source: ultralytics' validator for oriented boxes (batch_probiou); Llerena et al., Gaussian bounding boxes and
    probabilistic intersection-over-union for object detection, 2021.
    """

    pool: ClassVar[str] = "rotated_boxes"
    takes = "rotated_boxes"

    def shapes(self, image: Mapping[str, Any]) -> Any:
        """Return the rotated boxes of an image [objects, 5] (see `BoxMetric.shapes`)."""
        import numpy as np

        boxes = np.asarray(image["rotated_boxes"], dtype=np.float32).reshape(-1, 5)
        if not np.isfinite(boxes).all():
            raise ValueError("a rotated box is not five finite numbers")
        return boxes

    def overlap(self, true: Any, predicted: Any, image: Mapping[str, Any]) -> Any:
        """Return probabilistic intersection over union (see `BoxMetric.overlap`)."""
        from ultralytics.utils.metrics import batch_probiou

        return batch_probiou(true, predicted)
