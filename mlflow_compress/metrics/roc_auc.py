"""Area under the ROC curve of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.scoring.answers import plain_label
from mlflow_compress.scoring.ranking_curves import ClassCurves, RankedClasses


@dataclass
class RocAuc(RankedClasses):
    """Area under the ROC curve of each class against all others, averaged over the classes, 0 to 1.

    It is the probability that a sample of the class gets a higher probability of the class than another sample. With
    two classes both have the same area.

    Source: Hand and Till, A simple generalisation of the area under the ROC curve for multiple class classification
    problems, 2001; scikit-learn's `roc_auc_score` with multi_class="ovr".

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), or one class
            only (binary).
        positive: the class for average=binary, as text.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "ROC AUC", "ru": "ROC AUC"}
    rank: ClassVar[int] = 42
    spelling: ClassVar[str] = r"(?:roc[- ]?)?auc(?:[- ]?roc)?"

    def require_scorable(self, references: Sequence[Any]) -> None:
        """Check that several classes occur (see `Metric.require_scorable`)."""
        super().require_scorable(references)
        if len(set(map(plain_label, references))) == 1:
            raise ValueError(self.undefined)

    def of_classes(self, curves: ClassCurves) -> Any:
        """Return the area of each class."""
        return curves.roc_auc
