"""Mean average precision of masks at overlaps 0.5 to 0.95."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.masks import MaskMetric


@dataclass
class MaskMap5095(MaskMetric):
    """Mean average precision of masks, averaged over mask overlap 0.5, 0.55, ... 0.95, and over the classes.

    Predictions must contain all objects with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator for segmentation (`Mask(P R mAP50 mAP50-95)` in its table), masks at a quarter of
    the image size.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "mask mAP50-95", "ru": "mAP50-95 масок"}
    rank: ClassVar[int] = 26
    spelling: ClassVar[str] = (
        r"(?:mask|m|seg)[ _-]?map(?:50[-\u2013]95|@0?[.,]50?[:-]0?[.,]95|@50[:-]95)"
        r"|map50[-\u2013]95 масок"
    )

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.average_precision
