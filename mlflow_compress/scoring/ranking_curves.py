"""ROC AUC and average precision: each class against all others, ranked by the probability of the class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_compress.records import Scale
from mlflow_compress.scoring import class_table
from mlflow_compress.scoring.answers import POSITIVE, plain_label, require_binary
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import PooledMetric


@dataclass(frozen=True, eq=False)
class ClassCurves:
    """The areas under the curves of each class, over drawn samples.

    Attributes:
        labels: The labels of the classes.
        samples: The number of drawn samples of each class.
        roc_auc: The area under the ROC curve; NaN if all drawn samples belong to the class, or none does.
        average_precision: The average precision; NaN if no drawn sample belongs to the class.
    """

    labels: tuple[Any, ...]
    samples: Any
    roc_auc: Any
    average_precision: Any


@dataclass
class RankedClasses(PooledMetric):
    """An area under the curves of the classes, and its mean over the classes that occur in the references.

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), or one class
            only (binary).
        positive: the class for average=binary, as text.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    takes = "scores"
    pool = class_table.POOL
    undefined = "all references belong to one class"

    average: Literal["macro", "weighted", "binary"] = "macro"
    positive: str = POSITIVE

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        require_binary(self.average, self.positive)

    def require_scorable(self, references: Sequence[Any]) -> None:
        """Check that the positive class occurs (see `Metric.require_scorable`)."""
        labels = sorted({str(plain_label(reference)) for reference in references})
        if self.average == "binary" and self.positive not in labels:
            raise ValueError(self._no_positive(labels))

    @abstractmethod
    def of_classes(self, curves: ClassCurves) -> Any:
        """Return the number of each class."""

    def items(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return the logits of all classes for each sample (see `class_table.items`)."""
        return class_table.items(ClassTable.of(references, predictions))

    def item_names(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Return the names of the columns, which contain the labels."""
        return class_table.item_names(ClassTable.of(references, predictions))

    def summarizer(self, items: Any, names: tuple[str, ...] = ()) -> Callable[[Any], ClassCurves]:
        """Return the function that computes the curves of drawn samples (see `PooledMetric.summarizer`)."""
        return _Curves(ClassTable.read(Statistics(items, names))).drawn

    def pick(self, summary: ClassCurves) -> float:
        """Return the mean over the classes that occur; NaN if it is undefined.

        Raises:
            ValueError: average=binary, and there is no class `positive`.
        """
        import numpy as np

        numbers, weights = self.of_classes(summary), summary.samples * 1.0
        if self.average == "binary":
            names = list(map(str, summary.labels))
            if self.positive not in names:
                raise ValueError(self._no_positive(names))
            return float(numbers[names.index(self.positive)])
        is_defined = (weights > 0) & np.isfinite(numbers)
        if not is_defined.any():
            return float("nan")
        return float(
            np.average(numbers[is_defined], weights=weights[is_defined] if self.average == "weighted" else None)
        )

    def _no_positive(self, labels: Sequence[str]) -> str:
        return (
            f"average=binary needs the class positive={self.positive}; the classes are {', '.join(labels[:10])}. "
            "Use positive=LABEL, or average=macro"
        )


def curves_of(table: ClassTable) -> ClassCurves:
    """Return the curves of all samples, each once."""
    import numpy as np

    return _Curves(table).drawn(np.ones(len(table.true), dtype=np.int64))


class _Curves:
    """Samples sorted by the probability of each class that occurs; drawn samples are counted in that order.

    Source: scikit-learn's `roc_auc_score` and `average_precision_score` with sample weights.
    """

    def __init__(self, table: ClassTable) -> None:
        import numpy as np

        self._labels, self._true = table.labels, table.true
        self._classes = np.unique(table.true)
        scores = table.log_probabilities[:, self._classes]
        self._order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self._order, axis=0)
        self._is_true = table.true[self._order] == self._classes
        # Samples with the same score form one step of a curve, which ends at the last of them.
        self._ends = np.vstack([ranked[1:] != ranked[:-1], np.ones((1, len(self._classes)), dtype=bool)])

    def drawn(self, times: Any) -> ClassCurves:
        """Return the curves of samples that were each drawn so many times [samples]."""
        import numpy as np

        weights = times[self._order].astype(np.float64)
        right = np.cumsum(weights * self._is_true, axis=0)
        wrong = np.cumsum(weights * ~self._is_true, axis=0)
        roc_auc, average_precision = (np.full(len(self._labels), np.nan) for _ in range(2))
        for column, label in enumerate(self._classes):
            ends = self._ends[:, column]
            true, false = right[ends, column], wrong[ends, column]
            steps = np.diff(true, prepend=0.0)
            if not true[-1]:
                continue
            precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
            average_precision[label] = (steps * precision).sum() / true[-1]
            if false[-1]:
                below = np.diff(false, prepend=0.0) * (true - steps / 2)
                roc_auc[label] = below.sum() / (true[-1] * false[-1])
        samples = np.bincount(self._true, weights=times, minlength=len(self._labels))
        return ClassCurves(self._labels, samples, roc_auc, average_precision)
