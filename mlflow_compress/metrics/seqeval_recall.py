"""Recall of entities in tagged text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.entities import EntityCounts


@dataclass
class SeqevalRecall(EntityCounts):
    """Recall of entities over all samples and types (micro average): right are those whose type and both ends are.

    Uses seqeval's default mode, that of conlleval: a change of type starts a new entity even without B-.

    Source: seqeval's `recall_score`; evaluate's seqeval calls it overall_recall.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "entity recall", "ru": "recall сущностей"}
    rank: ClassVar[int] = 220
    spelling: ClassVar[str] = r"(?:entity|seqeval) recall|recall сущностей"

    def reduce(self, sums: Any) -> float:
        """Divide right entities by true ones."""
        right, _, true = sums
        return float(right / true if true else 0.0)
