"""ROUGE: the overlap of a summary with its reference, by rouge_score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric

_LATIN = re.compile(r"[a-z]", re.IGNORECASE)
_WORDS = re.compile(r"\w+")


@dataclass
class Rouge(AdditiveMetric):
    """Mean over the samples of ROUGE's F1.

    Source: Lin, ROUGE: a package for automatic evaluation of summaries, 2004; Google's rouge_score.

    Attributes:
        kind: `rouge1`, `rouge2`, `rougeL`.
        tokens: rouge_score's tokens (latin: runs of a-z and 0-9; other scripts are dropped), the same reduced to
            English stems (stems: Porter's), or runs of letters and digits of any script (words).
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    takes = "texts"
    kind: ClassVar[Literal["rouge1", "rouge2", "rougeL"]]

    tokens: Literal["latin", "stems", "words"] = "latin"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return F1 and 1 for each sample."""
        import numpy as np
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        if not all(isinstance(text, str) for text in (*references, *predictions)):
            raise ValueError("a reference and a prediction must be text")
        if self.tokens != "words" and not _is_latin(references):
            raise ValueError("ROUGE's default tokens are Latin letters and digits; for these texts use tokens=words")
        tokenizer = _Words() if self.tokens == "words" else DefaultTokenizer(use_stemmer=self.tokens == "stems")
        scorer = RougeScorer([self.kind], tokenizer=tokenizer)
        pairs = zip(references, predictions, strict=True)
        scores = [scorer.score(reference, summary)[self.kind].fmeasure for reference, summary in pairs]
        return np.array([(score, 1) for score in scores], dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Return the mean."""
        return float(sums[0] / sums[1])


class _Words:
    """Tokens of any script, with the interface of rouge_score's tokenizers."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())


def _is_latin(texts: Sequence[str]) -> bool:
    letters = sum(letter.isalpha() for text in texts for letter in text)
    return sum(len(_LATIN.findall(text)) for text in texts) >= letters / 2
