"""Recall of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.boxes import BoxMetric


@dataclass
class BoxRecall(BoxMetric):
    """Recall of boxes at overlap 0.5 and the confidence of the best mean F1, averaged over the classes.

    Predictions must contain all boxes with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator (`R` in its table).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "box recall", "ru": "recall рамок"}
    rank: ClassVar[int] = 240
    spelling: ClassVar[str] = r"box recall|recall рамок"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.recall
