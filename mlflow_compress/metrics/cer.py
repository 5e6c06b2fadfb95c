"""Character error rate of a transcription."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_compress.scoring.transcripts import ErrorRate


@dataclass
class Cer(ErrorRate):
    """Character error rate over the whole corpus: all edits over all reference characters, never a mean of utterances.

    Nothing is normalised: case, punctuation and spaces count.

    Source: jiwer.cer.
    """

    counts = "characters"
