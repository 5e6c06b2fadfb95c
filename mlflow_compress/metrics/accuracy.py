"""Share of correct answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.answers import ranked
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Accuracy(AdditiveMetric):
    """Share of predictions that equal their reference, 0 to 1; of a ranking, its first label.

    Source: scikit-learn's `accuracy_score` returns the same number.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "accuracy", "ru": "accuracy"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 10
    spelling: ClassVar[str] = r"accuracy|acc|точность|top[- ]?1(?: accuracy)?"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "labels"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return 1 or 0 for each correct or wrong answer, and 1 for each sample."""
        import numpy as np

        pairs = zip(references, ranked(references, predictions), strict=True)
        return np.array([(bool(reference == ranking[0]), 1) for reference, ranking in pairs], dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide correct answers by samples."""
        return float(sums[0] / sums[1])
