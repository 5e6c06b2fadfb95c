"""Bits that a language model needs per byte of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.likelihoods import LikelihoodPer


@dataclass
class BitsPerByte(LikelihoodPer):
    """Negative log-likelihood in bits per byte of the text in UTF-8, all texts together.

    Comparable between tokenizers and languages.

    Source: lm-evaluation-harness's `bits_per_byte`; Gao et al., The Pile, 2020, section 3.1.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "bits per byte", "ru": "бит на байт"}
    rank: ClassVar[int] = 120
    spelling: ClassVar[str] = r"bits per byte|бит на байт"
    unit: ClassVar[str] = "bits per byte"
    per = "bytes"

    def reduce(self, sums: Any) -> float:
        """Divide the likelihood by the bytes."""
        import numpy as np

        likelihood, size = sums
        return float(likelihood / np.log(2) / size) if size else float("nan")
