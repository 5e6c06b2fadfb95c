"""Mean average precision of keypoints at overlap 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.keypoints import KeypointMetric


@dataclass
class KeypointMap50(KeypointMetric):
    """Mean average precision of keypoints at keypoint similarity 0.5, over the classes that have true keypoints.

    Predictions must contain all objects with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator for poses (`Pose(P R mAP50 mAP50-95)` in its table).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "pose mAP50", "ru": "mAP50 точек"}
    rank: ClassVar[int] = 167
    spelling: ClassVar[str] = r"(?:pose|keypoints?)[ _-]?map(?:@0?[.,]50?|50|@50)|map50 точек"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.average_precision[:, 0]
