"""Keypoints of objects, such as the joints of a person, matched by their distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.boxes import BoxMetric

_AREA = 0.53  # share of a box that its object covers, as in ultralytics
_COORDINATES = 2


@dataclass
class KeypointMetric(BoxMetric):
    """A mean over the classes of objects with keypoints, which match by object keypoint similarity.

    An image maps `keypoints` to the points of its objects: x, y and, for true points, visibility (0: unknown). A
    reference also maps `boxes` to their boxes, whose area is the scale of the tolerance. It may map `sigmas` to the
    tolerance of each point; otherwise 17 points have those of COCO, and others 1 divided by their number.

    Distances are measured in the image's pixels. ultralytics measures them after it fitted the image into a square,
    where sides are rounded to whole pixels: scores of images that are not square may differ slightly.

    Source: ultralytics' validator for poses (kpt_iou); https://cocodataset.org/#keypoints-eval.
    """

    pool: ClassVar[str] = "keypoints"
    takes = "keypoints"

    def shapes(self, image: Mapping[str, Any]) -> Any:
        """Return the points [objects, points, 3] with the boxes [objects, 1, 3 or more] (see `BoxMetric.shapes`)."""
        import numpy as np

        points = np.asarray(image["keypoints"], dtype=np.float32)
        if not len(points):
            return np.zeros((0, 1, 3), dtype=np.float32)
        if points.ndim != 3 or not np.isfinite(points).all():  # objects, points, coordinates
            raise ValueError("keypoints must be finite numbers [objects, points, 2 or 3]")
        if points.shape[2] == _COORDINATES:
            points = np.concatenate([points, np.ones_like(points[:, :, :1])], axis=2)
        sides = np.full((len(points), 1, 3), np.nan, dtype=np.float32)
        if "boxes" in image:
            boxes = super().shapes(image)
            if len(boxes) != len(points):
                raise ValueError(f"{len(points)} objects with keypoints, but {len(boxes)} boxes in an image")
            sides[:, 0, :2] = boxes[:, 2:] - boxes[:, :2]
        return np.concatenate([points, sides], axis=1)

    def overlap(self, true: Any, predicted: Any, image: Mapping[str, Any]) -> Any:
        """Return object keypoint similarity (see `BoxMetric.overlap`)."""
        import numpy as np
        import torch
        from ultralytics.utils.metrics import OKS_SIGMA, kpt_iou

        if true.shape[1] != predicted.shape[1]:
            raise ValueError(f"{true.shape[1] - 1} true keypoints, but {predicted.shape[1] - 1} predicted ones")
        if np.isnan(true[:, -1, :2]).any():
            raise ValueError("a reference with keypoints also needs boxes: their area is the scale of the tolerance")
        count = true.shape[1] - 1
        sigmas = image.get("sigmas") or (OKS_SIGMA.tolist() if count == len(OKS_SIGMA) else [1 / count] * count)
        if len(sigmas) != count:
            raise ValueError(f"{len(sigmas)} sigmas for {count} keypoints")
        area = torch.from_numpy(true[:, -1, :2].prod(axis=1) * _AREA)
        return kpt_iou(torch.from_numpy(true[:, :-1]), torch.from_numpy(predicted[:, :-1]), area=area, sigma=sigmas)
