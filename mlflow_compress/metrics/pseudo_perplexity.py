"""Pseudo-perplexity of a masked language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.likelihoods import LikelihoodPer


@dataclass
class PseudoPerplexity(LikelihoodPer):
    """Pseudo-perplexity: e to the mean negative log-likelihood of each token where it is masked, all texts together.

    Comparable only between models with the same tokenizer and the same masking, which the family's `masking` sets.

    Source: Salazar et al., Masked Language Model Scoring, arXiv 1910.14659, section 2.3.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "pseudo-perplexity", "ru": "псевдоперплексия"}
    rank: ClassVar[int] = 105
    spelling: ClassVar[str] = r"pseudo[- ]?perplexity|pppl|псевдоперплексия"
    unit: ClassVar[str] = ""
    per = "tokens"

    def reduce(self, sums: Any) -> float:
        """Divide the likelihood by the tokens."""
        import numpy as np

        likelihood, tokens = sums
        return float(np.exp(likelihood / tokens)) if tokens else float("nan")
