"""Mean average precision of masks at overlap 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.masks import MaskMetric


@dataclass
class MaskMap50(MaskMetric):
    """Mean average precision of masks at mask overlap 0.5, over the classes that have true masks.

    Predictions must contain all objects with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator for segmentation (`Mask(P R mAP50 mAP50-95)` in its table), masks at a quarter of
    the image size.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "mask mAP50", "ru": "mAP50 масок"}
    rank: ClassVar[int] = 166
    spelling: ClassVar[str] = r"(?:mask|m|seg)[ _-]?map(?:@0?[.,]50?|50|@50)|map50 масок"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.average_precision[:, 0]
