"""Error rates of transcripts: edits over the length of the references, both summed over all samples."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric

_SPELLING = Path(__file__).with_name("english_spelling.json")


@dataclass
class ErrorRate(AdditiveMetric):
    """Edits over the units of the references, both of all samples; words recognised in silence count as insertions.

    If no reference has a unit, there is no rate; jiwer then returns the number of edits.

    Source: jiwer's process_words and process_characters.

    Attributes:
        counts: the unit: `words`, or `characters`.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "error_rate"
    greater_is_better: ClassVar[bool] = False
    takes = "texts"
    undefined = "all references are empty, and errors are divided by the length of the references"
    counts: ClassVar[Literal["words", "characters"]]

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count edits and units of the reference, for each text."""
        import jiwer
        import numpy as np

        align = jiwer.process_words if self.counts == "words" else jiwer.process_characters
        aligned = align(self.normalized(references), self.normalized(predictions))
        edits = [sum(_edits(chunk) for chunk in chunks) for chunks in aligned.alignments]
        return np.array(list(zip(edits, map(len, aligned.references), strict=True)), dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide edits by units; without units there is no rate."""
        edits, units = sums
        return float(edits / units) if units else float("nan")

    def normalized(self, texts: Sequence[Any]) -> list[str]:
        """Return the texts in the form for comparison; here unchanged."""
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a transcript must be text")
        return list(texts)


@dataclass
class NormalizedErrorRate(ErrorRate):
    """Error rate after Whisper's normaliser.

    Source: Radford et al., Robust speech recognition via large-scale weak supervision, 2022, appendix C; transformers'
    copy of it, with OpenAI's table of British and American spellings, which lies beside this file.

    Attributes:
        language: the normaliser.
    """

    language: Literal["english", "other"] = "english"

    def normalized(self, texts: Sequence[Any]) -> list[str]:
        """Return the texts in lower case, without punctuation; in English with numbers as digits, and so on."""
        normalize = _normalizer(self.language)
        return [normalize(text) for text in super().normalized(texts)]


@functools.cache
def _normalizer(language: str) -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if language == "other":
        return BasicTextNormalizer()
    return EnglishTextNormalizer(json.loads(_SPELLING.read_text(encoding="utf-8")))


def _edits(chunk: Any) -> int:
    if chunk.type == "equal":
        return 0
    return int(max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx))
