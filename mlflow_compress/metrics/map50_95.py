"""Mean average precision of a detector at overlaps 0.5 to 0.95."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_compress.scoring.boxes import BoxMetric, Curves


@dataclass
class Map5095(BoxMetric):
    """Mean average precision, averaged over intersection over union 0.5, 0.55, ... 0.95, and over the classes.

    Predictions must hold all boxes with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator (mAP50-95 in its table); Everingham et al., The Pascal visual object classes
    challenge, 2010; Lin et al., Microsoft COCO, 2014 (101 points of recall).
    """

    def pick(self, curves: Curves) -> Any:
        """Take it from the curves."""
        return curves.average_precision
