# ruff: noqa: N999  (the measure is called rougeL)
"""ROUGE of a summary, by the longest common subsequence of words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.scoring.overlap import Rouge


@dataclass
class RougeL(Rouge):
    """F1 of the longest common subsequence of words shared with the reference, 0 to 1, mean over the samples.

    Hugging Face evaluate's `rouge` returns the middle of a random bootstrap instead; without its aggregator, its mean
    equals this number.

    Source: Lin, ROUGE: a package for automatic evaluation of summaries, 2004; Google's rouge_score.

    Attributes:
        tokens: rouge_score's tokens (latin: runs of a-z and 0-9; other scripts are dropped), the same reduced to
            English stems (stems: Porter's), or runs of letters and digits of any script (words).
    """

    label: ClassVar[Mapping[str, str]] = {"en": "ROUGE-L", "ru": "ROUGE-L"}
    rank: ClassVar[int] = 90
    spelling: ClassVar[str] = r"rouge-?l"
    kind = "rougeL"
