"""Share of masked tokens that are predicted correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class MaskedAccuracy(AdditiveMetric):
    """Share of tokens that are the likeliest ones where they are masked, over all texts, 0 to 1.

    Source: Devlin et al., BERT, arXiv 1810.04805, appendix C.1 reports it as accuracy of the masked language model.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "masked accuracy", "ru": "accuracy масок"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 106
    spelling: ClassVar[str] = r"(?:masked|mlm) accuracy|accuracy масок"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "likelihoods"
    undefined = "no token is predicted"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the correctly predicted tokens, and all of them, of each text."""
        import numpy as np

        try:
            values = [(text["right"], text["tokens"], text["nll"]) for text in predictions]
        except (KeyError, TypeError) as error:
            raise ValueError("a prediction must map right, tokens and nll to numbers") from error
        if any(np.isnan(loss) for _, _, loss in values):
            raise ValueError("the likelihood of a text is not a number")
        return np.array([(right, tokens) for right, tokens, _ in values], dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide by the tokens."""
        right, tokens = sums
        return float(right / tokens) if tokens else float("nan")
