"""Mean average precision of a detector at overlap 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.boxes import BoxMetric


@dataclass
class Map50(BoxMetric):
    """Mean average precision at intersection over union 0.5, over the classes that have true boxes.

    Predictions must contain all boxes with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator (mAP50 in its table); Everingham et al., The Pascal visual object classes challenge,
    2010; Lin et al., Microsoft COCO, 2014 (101 points of recall).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "mAP50", "ru": "mAP50"}
    rank: ClassVar[int] = 170
    spelling: ClassVar[str] = r"map(?:@0?[.,]50?|50|@50)"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.average_precision[:, 0]
