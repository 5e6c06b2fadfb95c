"""Mean average precision of rotated boxes at overlap 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.rotated_boxes import RotatedBoxMetric


@dataclass
class ObbMap50(RotatedBoxMetric):
    """Mean average precision of rotated boxes at overlap 0.5, over the classes that have true boxes.

    Predictions must contain all objects with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator for oriented boxes (mAP50 and mAP50-95 in its table).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "OBB mAP50", "ru": "mAP50 повёрнутых рамок"}
    rank: ClassVar[int] = 168
    spelling: ClassVar[str] = r"obb[ _-]?map(?:@0?[.,]50?|50|@50)|map50 повёрнутых рамок"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.average_precision[:, 0]
