"""The confusion matrix of a classifier, and its scores class by class, as tables like those of MLflow's `log_table`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.scoring.answers import plain_label, ranked
from mlflow_compress.scoring.ranking_curves import ClassCurves

MOST_CLASSES = 2048  # with more, the labels are hardly classes
Table = dict[str, Any]
_LABELS = (str, int, bool)


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each other class.

    Attributes:
        classes: The labels, in order where they can be sorted.
        counts: The number of samples by reference and answer; absent if there are none.
    """

    classes: tuple[Any, ...]
    counts: dict[tuple[Any, Any], int]

    @classmethod
    def of(cls, references: Sequence[Any], predictions: Sequence[Any]) -> Confusion | None:
        """Count the answers of a classifier; return None if references or answers are not labels of classes."""
        try:
            answers = [ranking[0] for ranking in ranked(references, predictions)]
        except ValueError:
            return None
        plain = [list(map(plain_label, side)) for side in (references, answers)]
        if not all(isinstance(label, _LABELS) for side in plain for label in side):
            return None
        labels = dict.fromkeys([*plain[0], *plain[1]])
        if len(labels) > MOST_CLASSES:
            return None
        is_text = {isinstance(label, str) for label in labels}
        classes = tuple(labels) if len(is_text) > 1 else tuple(sorted(labels))
        return cls(classes, dict(Counter(zip(*plain, strict=True))))

    def matrix(self) -> Table:
        """Return the confusion matrix: reference, answer and number of samples, without zeros, the largest first."""
        rows = sorted(self.counts.items(), key=lambda pair: -pair[1])
        return {
            "columns": ["reference", "prediction", "samples"],
            "data": [[true, answer, count] for (true, answer), count in rows],
        }

    def by_class(self, curves: ClassCurves | None = None) -> Table:
        """Return the scores of each class; null if undefined.

        Args:
            curves: The areas under the curves of the classes, if their probabilities are known.
        """
        areas: dict[Any, tuple[float, float]] = {}
        if curves is not None:
            pairs = zip(curves.roc_auc, curves.average_precision, strict=True)
            areas = dict(zip(curves.labels, pairs, strict=True))
        predicted, true = Counter[Any](), Counter[Any]()
        for (reference, answer), count in self.counts.items():
            true[reference] += count
            predicted[answer] += count
        rows = []
        for label in self.classes:
            right = self.counts.get((label, label), 0)
            scores = [
                _ratio(right, predicted[label]),
                _ratio(right, true[label]),
                _ratio(2 * right, predicted[label] + true[label]),
            ]
            rows.append([label, true[label], predicted[label], *scores, *map(_finite, areas.get(label, ()))])
        columns = ["class", "samples", "predicted", "precision", "recall", "f1"]
        columns += ["roc_auc", "average_precision"] if areas else []
        width = len(columns)
        return {"columns": columns, "data": [row + [None] * (width - len(row)) for row in rows]}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
