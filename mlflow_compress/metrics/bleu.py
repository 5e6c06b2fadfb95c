"""BLEU of a translation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_compress.scoring.ngrams import Sacrebleu


@dataclass
class Bleu(Sacrebleu):
    """BLEU over the whole corpus, 0 to 100, as sacrebleu computes it, which signs it.

    Texts must not be tokenised: sacrebleu tokenises them itself.

    Source: Papineni et al., BLEU: a method for automatic evaluation of machine translation, 2002; Post, A call for
    clarity in reporting BLEU scores, 2018.

    Attributes:
        tokenize: sacrebleu's tokenizer: 13a is that of WMT, zh is for Chinese, intl handles all Unicode punctuation.
        lowercase: whether to ignore case.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "BLEU", "ru": "BLEU"}
    rank: ClassVar[int] = 70
    spelling: ClassVar[str] = r"(?:sacre)?bleu"

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    lowercase: bool = False

    def scorer(self) -> Any:
        """Return sacrebleu's BLEU."""
        from sacrebleu.metrics.bleu import BLEU

        return BLEU(lowercase=self.lowercase, tokenize=self.tokenize)
