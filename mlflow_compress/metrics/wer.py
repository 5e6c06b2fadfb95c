"""Word error rate of a transcription."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.sockets import Metric


@dataclass
class Wer(Metric):
    """Word error rate over the whole corpus: all edits over all reference words, never a mean of utterances.

    Nothing is normalised: case and punctuation count.

    Source: jiwer.wer.
    """

    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = False

    def compute(self, references: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Score texts."""
        import jiwer

        return float(jiwer.wer(list(references), list(predictions)))
