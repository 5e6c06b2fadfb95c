"""Loss of a classifier: cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class LogLoss(AdditiveMetric):
    """Mean negative logarithm of the probability of the true class, in nats: the cross-entropy loss.

    A probability of 0 counts as 2.2e-16, as in scikit-learn.

    Source: scikit-learn's `log_loss`; torch's `cross_entropy`.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "log loss", "ru": "log loss"}
    scale: ClassVar[Scale | None] = "unbounded"
    rank: ClassVar[int] = 192
    spelling: ClassVar[str] = r"log[- ]?loss|cross[- ]entropy(?: loss)?"
    unit: ClassVar[str] = "nats"
    greater_is_better: ClassVar[bool] = False
    takes = "scores"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the loss and 1 for each sample."""
        import numpy as np

        table = ClassTable.of(references, predictions)
        losses = -table.log_probabilities[np.arange(len(table.true)), table.true]
        losses[np.isposinf(losses)] = -np.log(np.finfo(np.float64).eps)
        return np.column_stack([losses, np.ones(len(losses))])

    def reduce(self, sums: Any) -> float:
        """Return the mean."""
        return float(sums[0] / sums[1])
