"""F1 of entities in tagged text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.entities import EntityCounts


@dataclass
class SeqevalF1(EntityCounts):
    """F1 of entities over all samples and types (micro average): right are those whose type and both ends are.

    Uses seqeval's default mode, that of conlleval: a change of type starts a new entity even without B-.

    Source: seqeval's `f1_score`; evaluate's seqeval calls it overall_f1.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "entity F1", "ru": "F1 сущностей"}
    rank: ClassVar[int] = 20
    spelling: ClassVar[str] = r"(?:entity|seqeval) f1|f1 сущностей"

    def reduce(self, sums: Any) -> float:
        """Divide right entities by the mean of predicted and true ones."""
        right, predicted, true = sums
        return float(2 * right / (predicted + true) if predicted + true else 0.0)
