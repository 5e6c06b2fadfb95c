"""Recall of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.answers import ClassCounts, over


@dataclass
class Recall(ClassCounts):
    """Share of a class's samples that are found, averaged over the classes; 0 for a class that has none.

    Source: scikit-learn's `recall_score`, with zero_division=0.

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), ratio of the
            counts of all classes (micro), or one class only (binary).
        positive: the class for average=binary, as text.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "recall", "ru": "recall"}
    rank: ClassVar[int] = 200
    spelling: ClassVar[str] = r"recall|полнота"

    def ratio(self, right: Any, predicted: Any, true: Any) -> Any:
        """Divide right answers by references."""
        return over(right, true)
