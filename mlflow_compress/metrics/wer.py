"""Word error rate of a transcription."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_compress.scoring.transcripts import ErrorRate


@dataclass
class Wer(ErrorRate):
    """Word error rate over the whole corpus: all edits over all reference words, never a mean of utterances.

    Nothing is normalised: case and punctuation count.

    Source: jiwer.wer.
    """

    counts = "words"
