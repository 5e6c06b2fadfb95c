"""Character error rate of a transcription."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.scoring.transcripts import ErrorRate


@dataclass
class Cer(ErrorRate):
    """Character error rate over the whole corpus: all edits over all reference characters, never a mean of utterances.

    Nothing is normalised: case, punctuation and spaces count.

    Source: jiwer.cer.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "CER", "ru": "CER"}
    rank: ClassVar[int] = 60
    spelling: ClassVar[str] = r"cer"
    counts = "characters"
