"""BLEU and chrF: n-grams that translations share with their references, counted by sacrebleu."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Sacrebleu(AdditiveMetric):
    """A sacrebleu corpus score from its statistics of each sentence, with one reference per sentence.

    Source: Post, A call for clarity in reporting BLEU scores, 2018.
    """

    unit: ClassVar[str] = "percent"
    scale: ClassVar[Scale | None] = "hundred"
    greater_is_better: ClassVar[bool] = True
    takes = "texts"

    @property
    def protocol(self) -> str:
        """Sacrebleu's signature."""
        scorer = self.scorer()
        scorer.num_refs = 1
        return f"sacrebleu {type(scorer).__name__} {scorer.get_signature()}"

    @abstractmethod
    def scorer(self) -> Any:
        """Return the `sacrebleu.metrics.base.Metric`."""

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count matching n-grams and all n-grams of each order, in each sentence."""
        import numpy as np

        if not all(isinstance(text, str) for text in (*references, *predictions)):
            raise ValueError("a reference and a prediction must be text")
        return np.array(self.scorer()._extract_corpus_statistics(predictions, [references]), dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Compute the score with sacrebleu."""
        return float(self.scorer()._compute_score_from_stats(list(sums)).score)
