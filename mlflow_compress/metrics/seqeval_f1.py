"""F1 of entities in tagged text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.entities import EntityCounts


@dataclass
class SeqevalF1(EntityCounts):
    """F1 of entities over all samples and types (micro average): right are those whose type and both ends are.

    In seqeval's default mode, that of conlleval: an entity also begins where its type changes, B- or not.

    Source: seqeval's `f1_score`; evaluate's seqeval calls it overall_f1.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "entity F1", "ru": "F1 сущностей"}
    rank: ClassVar[int] = 20
    spelling: ClassVar[str] = r"(?:entity|seqeval) f1|f1 сущностей"

    def reduce(self, sums: Any) -> float:
        """Divide right entities by the mean of predicted and true ones."""
        right, predicted, true = sums
        return float(2 * right / (predicted + true) if predicted + true else 0.0)
