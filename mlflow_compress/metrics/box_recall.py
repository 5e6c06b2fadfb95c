"""Recall of a detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_compress.scoring.boxes import BoxMetric, Curves


@dataclass
class BoxRecall(BoxMetric):
    """Recall of boxes at overlap 0.5 and the confidence of the best mean F1, averaged over the classes.

    Predictions must hold all boxes with a score above about 0.001, after non-maximum suppression.

    Source: ultralytics' validator (`R` in its table).
    """

    def pick(self, curves: Curves) -> Any:
        """Take it from the curves."""
        return curves.recall
