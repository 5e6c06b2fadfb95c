"""Precision of entities in tagged text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_compress.scoring.entities import EntityCounts


@dataclass
class SeqevalPrecision(EntityCounts):
    """Precision of entities over all samples and types (micro average): right are those whose type and both ends are.

    In seqeval's default mode, that of conlleval: an entity also begins where its type changes, B- or not.

    Source: seqeval's `precision_score`; evaluate's seqeval calls it overall_precision.
    """

    def reduce(self, sums: Any) -> float:
        """Divide right entities by predicted ones."""
        right, predicted, _ = sums
        return float(right / predicted if predicted else 0.0)
