"""Share of texts that equal their reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class ExactMatch(AdditiveMetric):
    """Share of texts that equal their reference, without white space at the ends, 0 to 1.

    Source: Rajpurkar et al., SQuAD, 2016; Hugging Face evaluate's `exact_match`, which keeps white space.

    Attributes:
        ignore_case: whether to ignore case.
        ignore_punctuation: whether to ignore punctuation (ASCII) and repeated white space.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "exact match", "ru": "точное совпадение"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 65
    spelling: ClassVar[str] = r"exact[- ]?match|em|точное совпадение"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "texts"

    ignore_case: bool = False
    ignore_punctuation: bool = False

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return 1 or 0 for each equal or other text, and 1 for each text."""
        import numpy as np

        if not all(isinstance(text, str) for text in (*references, *predictions)):
            raise ValueError("a reference and a prediction must be text")
        pairs = zip(references, predictions, strict=True)
        return np.array([(self._plain(true) == self._plain(text), 1) for true, text in pairs], dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide equal texts by all texts."""
        return float(sums[0] / sums[1])

    def _plain(self, text: str) -> str:
        import string

        text = text.casefold() if self.ignore_case else text
        if self.ignore_punctuation:
            text = " ".join(text.translate(str.maketrans("", "", string.punctuation)).split())
        return text.strip()
