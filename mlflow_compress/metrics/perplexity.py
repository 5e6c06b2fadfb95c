"""Perplexity of a language model, by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.likelihoods import LikelihoodPer


@dataclass
class Perplexity(LikelihoodPer):
    """Perplexity by token: e to the negative log-likelihood per predicted token, all texts together.

    Comparable only between models with the same tokenizer and protocol: the family's `protocol` determines which tokens
    are predicted, from which context (`causal_lm`: `lm_eval`, `wikitext2` or `sliding`).

    Source: Jelinek et al., 1977; the protocols: see `networks/token_windows.py`.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "perplexity", "ru": "перплексия"}
    rank: ClassVar[int] = 100
    spelling: ClassVar[str] = r"perplexity|ppl|перплексия"
    unit: ClassVar[str] = ""
    per = "tokens"

    def reduce(self, sums: Any) -> float:
        """Divide the likelihood by the tokens."""
        import numpy as np

        likelihood, tokens = sums
        return float(np.exp(likelihood / tokens)) if tokens else float("nan")
