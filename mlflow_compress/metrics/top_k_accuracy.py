"""Share of samples whose label is among the best k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.records import Scale
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class TopKAccuracy(AdditiveMetric):
    """Share of samples with fewer than k classes that are more probable than the reference, 0 to 1.

    Source: scikit-learn's `top_k_accuracy_score`, which treats classes with the same score in another way.

    Attributes:
        k: number of labels that may be correct.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "top-k accuracy", "ru": "top-k accuracy"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 185
    spelling: ClassVar[str] = r"top[- ]?k(?: accuracy)?"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "scores"

    k: Annotated[int, Ge(1)] = 3

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return 1 or 0 for each sample whose reference is among the best k or not, and 1 for each sample."""
        import numpy as np

        table = ClassTable.of(references, predictions)
        of_reference = np.take_along_axis(table.logits, table.true[:, None], axis=1)
        is_among = (table.logits > of_reference).sum(axis=1) < self.k
        return np.column_stack([is_among, np.ones(len(is_among))]).astype(np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide hits by samples."""
        return float(sums[0] / sums[1])
