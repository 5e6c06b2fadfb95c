"""Linear correlation of predicted and true similarities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.correlations import number_pairs, require_spread
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Pearson(AdditiveMetric):
    """Pearson's correlation of predictions with true values, -1 to 1.

    Source: scipy's `pearsonr` returns the same number.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "Pearson", "ru": "Пирсон"}
    scale: ClassVar[Scale | None] = "correlation"
    rank: ClassVar[int] = 62
    spelling: ClassVar[str] = r"(?:cosine )?pearson(?:'s)?(?: (?:r|correlation))?|пирсон\w*"
    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = True
    takes = "numbers"
    undefined = "all true values, or all predictions, are equal"

    def require_scorable(self, references: Sequence[Any]) -> None:
        """Check that the true values differ (see `Metric.require_scorable`)."""
        require_spread(references)

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return 1, both numbers, their squares and their product for each sample."""
        import numpy as np

        true, predicted = number_pairs(references, predictions).T
        return np.column_stack([np.ones(len(true)), true, predicted, true**2, predicted**2, true * predicted])

    def reduce(self, sums: Any) -> float:
        """Divide the covariance by both standard deviations."""
        import numpy as np

        count, true, predicted, true_squares, predicted_squares, products = sums
        variances = (count * true_squares - true**2) * (count * predicted_squares - predicted**2)
        return float((count * products - true * predicted) / np.sqrt(variances)) if variances > 0 else float("nan")
