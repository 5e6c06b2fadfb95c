"""Share of relevant documents among the best ones found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.records import Scale
from mlflow_compress.scoring.rankings import places
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class RetrievalRecall(AdditiveMetric):
    """Share of a query's relevant documents that are among the first k found, mean over the queries, 0 to 1.

    With one relevant document for each query, it is the hit rate.

    Source: `recall_at_k` of MTEB and BEIR; Thakur et al., BEIR, arXiv 2104.08663.

    Attributes:
        k: number of documents that count, best first; at most 100.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "retrieval recall", "ru": "recall поиска"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 64
    spelling: ClassVar[str] = r"(?:retrieval )?recall ?@ ?\d+|hit ?rate ?@ ?\d+|retrieval recall|recall поиска"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "rankings"

    k: Annotated[int, Ge(1)] = 10

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the share of found documents, and 1, for each query."""
        import numpy as np

        shares = [
            (sum(place is not None and place <= self.k for place in of_query) / len(of_query), 1.0)
            for of_query in places(references, predictions)
        ]
        return np.array(shares, dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide by the queries."""
        return float(sums[0] / sums[1])
