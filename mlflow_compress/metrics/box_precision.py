"""Precision of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.box_curves import Curves
from mlflow_compress.scoring.boxes import BoxMetric


@dataclass
class BoxPrecision(BoxMetric):
    """Precision of boxes at overlap 0.5 and the confidence of the best mean F1, averaged over the classes.

    Predictions must contain all boxes with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator (`Box(P` in its table).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "box precision", "ru": "precision рамок"}
    rank: ClassVar[int] = 230
    spelling: ClassVar[str] = r"box precision|precision рамок"

    def of_classes(self, curves: Curves) -> Any:
        """Return the values of each class from the curves."""
        return curves.precision
