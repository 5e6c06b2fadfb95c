"""Reciprocal rank of the first relevant document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.records import Scale
from mlflow_compress.scoring.rankings import places
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Mrr(AdditiveMetric):
    """Mean over the queries of 1 / rank of the first relevant document, 0 if it is not among the first k; 0 to 1.

    Source: `mrr_at_k` of MTEB and BEIR; Voorhees, The TREC-8 question answering track report, 1999.

    Attributes:
        k: number of documents that count, best first; at most 100.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "MRR", "ru": "MRR"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 66
    spelling: ClassVar[str] = r"mrr(?: ?@ ?\d+)?"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "rankings"

    k: Annotated[int, Ge(1)] = 10

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the reciprocal rank, and 1, for each query."""
        import numpy as np

        best = [
            min((place for place in of_query if place is not None and place <= self.k), default=None)
            for of_query in places(references, predictions)
        ]
        return np.array([(0.0 if place is None else 1 / place, 1.0) for place in best], dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide by the queries."""
        return float(sums[0] / sums[1])
