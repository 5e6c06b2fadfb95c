"""Entities in tagged text: what seqeval takes for one, and how many are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class EntityCounts(AdditiveMetric):
    """Counts of entities over all samples and types (micro average), in seqeval's default mode, that of conlleval.

    An entity is right when its type and both ends are. A ratio of nothing is 0, as in seqeval.

    Source: seqeval's get_entities; Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 shared task, 2003.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    takes = "tags"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count right, predicted and true entities of each sample."""
        import numpy as np
        from seqeval.metrics.sequence_labeling import get_entities

        counts = []
        for index, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
            if isinstance(reference, str) or isinstance(prediction, str) or len(reference) != len(prediction):
                raise ValueError(f"sample {index} must have one tag of each kind for each word")
            true, predicted = set(get_entities(list(reference))), set(get_entities(list(prediction)))
            counts.append((len(true & predicted), len(predicted), len(true)))
        return np.array(counts, dtype=np.float64)
