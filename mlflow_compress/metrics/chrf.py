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

    Characters up to 6-grams without white space, recall weighs twice as much (beta 2).

    Source: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015; with word_order=2 it is chrF++
    (Popović, chrF++: words helping character n-grams, 2017).

    Attributes:
        word_order: up to which n-grams of words are counted too.
        lowercase: whether case does not count.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "chrF", "ru": "chrF"}
    rank: ClassVar[int] = 80
    spelling: ClassVar[str] = r"chrf"

    word_order: Annotated[int, Ge(0), Le(2)] = 0
    lowercase: bool = False

    def scorer(self) -> Any:
        """Make sacrebleu's CHRF."""
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(word_order=self.word_order, lowercase=self.lowercase)
