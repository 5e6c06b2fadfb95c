"""Precision of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.answers import ClassCounts, over


@dataclass
class Precision(ClassCounts):
    """Share of a class's answers that are right, averaged over the classes; 0 for a class that is never answered.

    Source: scikit-learn's `precision_score`, with zero_division=0.

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), ratio of the
            counts of all classes (micro), or one class only (binary).
        positive: the class for average=binary, as text.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "precision", "ru": "precision"}
    rank: ClassVar[int] = 190
    spelling: ClassVar[str] = r"precision"

    def ratio(self, right: Any, predicted: Any, true: Any) -> Any:
        """Divide correct answers by answers."""
        return over(right, predicted)
