"""Perplexity of a language model, by word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.likelihoods import LikelihoodPer


@dataclass
class WordPerplexity(LikelihoodPer):
    """Perplexity by word: e to the negative log-likelihood per word, all texts together.

    Comparable between tokenizers with the same protocol of the family. Words are separated by white space.

    Source: lm-evaluation-harness's `word_perplexity` (weighted_perplexity; its wikitext task counts the words), with
    `protocol=lm_eval` of `causal_lm`. Its task also removes WikiText's spaces before punctuation: do so in your data.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "word perplexity", "ru": "перплексия по словам"}
    rank: ClassVar[int] = 110
    spelling: ClassVar[str] = r"word perplexity|перплексия по словам"
    unit: ClassVar[str] = ""
    per = "words"

    def reduce(self, sums: Any) -> float:
        """Divide the likelihood by the words."""
        import numpy as np

        likelihood, words = sums
        return float(np.exp(likelihood / words)) if words else float("nan")
