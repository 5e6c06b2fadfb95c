"""Matthews correlation coefficient of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.answers import class_counts, class_names
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Matthews(AdditiveMetric):
    """Matthews correlation coefficient of references and answers: 1 is perfect, 0 is chance, -1 is the worst.

    It is 0 if all answers, or all references, belong to one class.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004;
    scikit-learn's `matthews_corrcoef`. GLUE uses it for CoLA.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "Matthews correlation", "ru": "корреляция Мэтьюса"}
    scale: ClassVar[Scale | None] = "correlation"
    rank: ClassVar[int] = 48
    spelling: ClassVar[str] = r"mcc|matthews?(?: corr(?:elation)?(?: coefficient)?)?|корреляция мэтьюса"
    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = True
    takes = "labels"

    def columns(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Return the names of the three counts of each class."""
        return class_names(references, predictions)

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count correct answers, answers and references of each class: [samples, 3 * classes]."""
        return class_counts(references, predictions)

    def reduce(self, sums: Any) -> float:
        """Return the covariance of answers and references divided by their deviations."""
        import numpy as np

        right, predicted, true = np.reshape(sums, (-1, 3)).T
        samples = true.sum()
        covariance = right.sum() * samples - (predicted * true).sum()
        spread = (samples**2 - (predicted**2).sum()) * (samples**2 - (true**2).sum())
        return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0
