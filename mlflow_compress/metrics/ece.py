"""Expected calibration error of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from mlflow_compress.records import Scale
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Ece(AdditiveMetric):
    """Expected calibration error: how far the confidence in an answer is from its accuracy, 0 to 1.

    The confidence is the probability of the answer. Samples are put into bins of equal width by their confidence; the
    error is the mean over the samples of the difference between the accuracy and the mean confidence of their bin.

    Source: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, 2015; Guo et al., On
    calibration of modern neural networks, 2017 (15 bins).

    Attributes:
        bins: number of bins, at most 1,000.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "ECE", "ru": "ECE"}
    scale: ClassVar[Scale | None] = "error_rate"
    rank: ClassVar[int] = 195
    spelling: ClassVar[str] = r"ece|(?:expected )?calibration error|ошибка калибровки"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = False
    takes = "scores"

    bins: Annotated[int, Ge(1), Le(1000)] = 15

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return for each sample 1, its confidence, and whether it is correct, in the columns of its bin."""
        import numpy as np

        table = ClassTable.of(references, predictions)
        rows = np.arange(len(table.true))
        confidence = np.exp(table.log_probabilities[rows, table.answers])
        number = np.clip(np.ceil(confidence * self.bins) - 1, 0, self.bins - 1).astype(np.int64)
        values = np.zeros((len(rows), self.bins, 3))
        values[rows, number] = np.column_stack([np.ones(len(rows)), confidence, table.answers == table.true])
        return values.reshape(len(rows), -1)

    def reduce(self, sums: Any) -> float:
        """Sum up the differences of correct answers and confidence, and divide by the samples."""
        import numpy as np

        samples, confidence, correct = np.reshape(sums, (self.bins, 3)).T
        return float(np.abs(correct - confidence).sum() / samples.sum())
