"""Character error rate of a transcription."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.sockets import Metric


@dataclass
class Cer(Metric):
    """Character error rate over the whole corpus: all edits over all reference characters, never a mean of utterances.

    Nothing is normalised: case and punctuation count.

    Source: jiwer.cer.
    """

    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = False

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score texts."""
        import jiwer

        return float(jiwer.cer(list(references), list(predictions)))
