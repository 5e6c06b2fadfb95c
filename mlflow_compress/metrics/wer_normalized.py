"""Word error rate of a transcription, ignoring case, punctuation and spelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.scoring.transcripts import NormalizedErrorRate


@dataclass
class WerNormalized(NormalizedErrorRate):
    """Word error rate over the whole corpus, of texts that Whisper's normaliser has made alike.

    It ignores case, punctuation, and in English also contractions, spelled-out numbers, fillers (um) and British
    spelling. Compare it with published numbers of Whisper and of the Open ASR leaderboard, not with plain WER.

    Source: jiwer.wer; Radford et al., Robust speech recognition via large-scale weak supervision, 2022, appendix C. The
    normaliser is transformers' EnglishTextNormalizer with OpenAI's english.json, or its BasicTextNormalizer.

    Attributes:
        language: Whisper's normaliser: `english`, or `other` for its basic one, for all other languages.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "normalized WER", "ru": "норм. WER"}
    rank: ClassVar[int] = 45
    spelling: ClassVar[str] = r"normali[sz]ed wer|(?:нормализованный|норм\.) wer"
    counts = "words"
