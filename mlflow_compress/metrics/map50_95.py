"""Mean average precision of a detector at overlaps 0.5 to 0.95."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.boxes import BoxMetric


@dataclass
class Map5095(BoxMetric):
    """Mean average precision, averaged over intersection over union 0.5, 0.55, ... 0.95, and over the classes.

    Predictions must contain all boxes with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator (mAP50-95 in its table); Everingham et al., The Pascal visual object classes
    challenge, 2010; Lin et al., Microsoft COCO, 2014 (101 points of recall).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "mAP50-95", "ru": "mAP50-95"}
    rank: ClassVar[int] = 30
    spelling: ClassVar[str] = r"map(?:50[-\u2013]95|@0?[.,]50?[:-]0?[.,]95|@50[:-]95)"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.average_precision
