"""F1 of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.answers import ClassCounts, over


@dataclass
class F1(ClassCounts):
    """Harmonic mean of a class's precision and recall, averaged over the classes (the mean of F1s, not F1 of means).

    Source: scikit-learn's `f1_score`, with zero_division=0.

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), ratio of the
            counts of all classes (micro), or one class only (binary).
        positive: the class for average=binary, as text.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "F1", "ru": "F1"}
    rank: ClassVar[int] = 40
    spelling: ClassVar[str] = r"(?:macro[- ])?f1(?:[- ]?(?:score|macro))?|f1-мера"

    def ratio(self, right: Any, predicted: Any, true: Any) -> Any:
        """Divide correct answers by the mean of answers and references."""
        return over(2 * right, predicted + true)
