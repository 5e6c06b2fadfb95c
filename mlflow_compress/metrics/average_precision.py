"""Average precision of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.ranking_curves import ClassCurves, RankedClasses


@dataclass
class AveragePrecision(RankedClasses):
    """Average precision of each class against all others, averaged over the classes, 0 to 1.

    It summarises the precision-recall curve without interpolation. Of a detector, use `map50`.

    Source: scikit-learn's `average_precision_score`.

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), or one class
            only (binary).
        positive: the class for average=binary, as text.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "average precision", "ru": "average precision"}
    rank: ClassVar[int] = 43
    spelling: ClassVar[str] = r"average precision|pr[- ]?auc|auc[- ]?pr"

    def of_classes(self, curves: ClassCurves) -> Any:
        """Return the average precision of each class."""
        return curves.average_precision
