"""chrF of a translation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from mlflow_compress.scoring.ngrams import Sacrebleu


@dataclass
class Chrf(Sacrebleu):
    """F-score of character n-grams over the whole corpus, 0 to 100, as sacrebleu computes it, which signs it.

    It counts character n-grams up to 6 without white space; recall has twice the weight of precision (beta 2).

    Source: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015; with word_order=2 it is chrF++
    (Popović, chrF++: words helping character n-grams, 2017).

    Attributes:
        word_order: maximum length of word n-grams that are counted as well.
        lowercase: whether to ignore case.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "chrF", "ru": "chrF"}
    rank: ClassVar[int] = 80
    spelling: ClassVar[str] = r"chrf"

    word_order: Annotated[int, Ge(0), Le(2)] = 0
    lowercase: bool = False

    def scorer(self) -> Any:
        """Return sacrebleu's CHRF."""
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(word_order=self.word_order, lowercase=self.lowercase)
