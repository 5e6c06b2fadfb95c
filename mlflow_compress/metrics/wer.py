"""Word error rate of a transcription."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.scoring.transcripts import ErrorRate


@dataclass
class Wer(ErrorRate):
    """Word error rate over the whole corpus: all edits over all reference words, never a mean of utterances.

    Nothing is normalised: case and punctuation count.

    Source: jiwer.wer.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "WER", "ru": "WER"}
    rank: ClassVar[int] = 50
    spelling: ClassVar[str] = r"wer"
    counts = "words"
