"""Share of exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.sockets import Metric


@dataclass
class Accuracy(Metric):
    """Share of predictions that equal their reference, 0 to 1.

    Source: scikit-learn's `accuracy_score` gives the same number.
    """

    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score label by label."""
        if not references or len(references) != len(predictions):
            raise ValueError(f"{len(references)} references and {len(predictions)} predictions can't be scored")
        right = sum(bool(a == b) for a, b in zip(references, predictions, strict=True))
        return right / len(references)
