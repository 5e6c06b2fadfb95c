"""Rank correlation of predicted and true similarities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.correlations import Ranks, correlation, number_pairs, require_spread
from mlflow_compress.sockets import PooledMetric


@dataclass
class Spearman(PooledMetric):
    """Spearman's rank correlation of predictions with true values, -1 to 1; equal values share their mean rank.

    This is the protocol of semantic textual similarity (STS) in MTEB: a prediction is the cosine of two embeddings.

    Source: scipy's `spearmanr` returns the same number; Muennighoff et al., MTEB, arXiv 2210.07316, section 3.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "Spearman", "ru": "Спирмен"}
    scale: ClassVar[Scale | None] = "correlation"
    rank: ClassVar[int] = 61
    spelling: ClassVar[str] = r"(?:cosine )?spearman(?:'s)?(?: (?:rho|correlation))?|спирмен\w*"
    unit: ClassVar[str] = ""
    greater_is_better: ClassVar[bool] = True
    pool: ClassVar[str] = "ranked_numbers"
    takes = "numbers"
    undefined = "all true values, or all predictions, are equal"

    def require_scorable(self, references: Sequence[Any]) -> None:
        """Check that the true values differ (see `Metric.require_scorable`)."""
        require_spread(references)

    def items(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return an array [samples, 3]: index of the sample, its true number, its prediction."""
        import numpy as np

        pairs = number_pairs(references, predictions)
        return np.column_stack([np.arange(len(pairs), dtype=np.float64), pairs])

    def summarizer(self, items: Any) -> Callable[[Any], float]:
        """Return the function that computes the correlation of drawn samples (see `PooledMetric.summarizer`)."""
        true, predicted = (Ranks(items[:, column]) for column in (1, 2))
        return lambda times: correlation(true.of(times), predicted.of(times), times)

    def pick(self, summary: float) -> float:
        """Return the correlation; NaN if all true values, or all predictions, are equal."""
        return summary
