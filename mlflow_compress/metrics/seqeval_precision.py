"""Precision of entities in tagged text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.entities import EntityCounts


@dataclass
class SeqevalPrecision(EntityCounts):
    """Precision of entities over all samples and types (micro average): right are those whose type and both ends are.

    Uses seqeval's default mode, that of conlleval: a change of type starts a new entity even without B-.

    Source: seqeval's `precision_score`; evaluate's seqeval calls it overall_precision.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "entity precision", "ru": "precision сущностей"}
    rank: ClassVar[int] = 210
    spelling: ClassVar[str] = r"(?:entity|seqeval) precision|precision сущностей"

    def reduce(self, sums: Any) -> float:
        """Divide right entities by predicted ones."""
        right, predicted, _ = sums
        return float(right / predicted if predicted else 0.0)
