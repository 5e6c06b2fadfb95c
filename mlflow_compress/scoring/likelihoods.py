"""Language modelling: the negative log-likelihood of texts, per token, word or byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class LikelihoodPer(AdditiveMetric):
    """A function of the negative log-likelihood per unit of the text, both summed over all texts.

    Attributes:
        per: the unit.
    """

    greater_is_better: ClassVar[bool] = False
    scale: ClassVar[Scale | None] = "unbounded"
    takes = "likelihoods"
    undefined = "no token is predicted; the first token of a text needs a token before it"
    per: ClassVar[Literal["tokens", "words", "bytes"]]

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the likelihood in nats, and the number of units, of each text."""
        import numpy as np

        try:
            return np.array([(text["nll"], text[self.per]) for text in predictions], dtype=np.float64)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a prediction must map nll and {self.per} to numbers") from error
