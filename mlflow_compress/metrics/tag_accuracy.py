"""Share of words with the correct tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.entities import tag_pairs
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class TagAccuracy(AdditiveMetric):
    """Share of words whose tag equals its reference, over all samples, 0 to 1.

    For tags that are not entities, such as parts of speech. Most tags of entities are O, so it is near 1 for any model.

    Source: seqeval's `accuracy_score`; evaluate's seqeval calls it overall_accuracy.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "tag accuracy", "ru": "accuracy тегов"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 25
    spelling: ClassVar[str] = r"(?:tag(?:ging)?|pos|token) accuracy|accuracy тегов"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "tags"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count correct tags and words of each sample."""
        import numpy as np

        counts = [
            (sum(true == tag for true, tag in zip(reference, prediction, strict=True)), len(reference))
            for reference, prediction in tag_pairs(references, predictions)
        ]
        return np.array(counts, dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide correct tags by words."""
        right, words = sums
        return float(right / words if words else 0.0)
