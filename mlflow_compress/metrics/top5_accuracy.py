"""Share of samples whose label is among the best five."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlflow_compress.records import Scale
from mlflow_compress.scoring.answers import ranked
from mlflow_compress.sockets import AdditiveMetric


@dataclass
class Top5Accuracy(AdditiveMetric):
    """Share of samples whose reference is among the five labels ranked best, 0 to 1.

    Predictions must be rankings. This is the convention of ImageNet.

    Source: Russakovsky et al., ImageNet large scale visual recognition challenge, 2015, section 4.1; scikit-learn's
    `top_k_accuracy_score` with k=5.
    """

    label: ClassVar[Mapping[str, str]] = {"en": "top-5 accuracy", "ru": "top-5 accuracy"}
    scale: ClassVar[Scale | None] = "share"
    rank: ClassVar[int] = 180
    spelling: ClassVar[str] = r"top[- ]?5(?: accuracy)?"
    unit: ClassVar[str] = "ratio"
    greater_is_better: ClassVar[bool] = True
    takes = "labels"

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return 1 for each label among the five, 0 for each other label, and 1 for each sample."""
        import numpy as np

        if not all(isinstance(prediction, (list, tuple)) for prediction in predictions):
            raise ValueError("predictions must be lists of labels, best first. Of scores use top_k_accuracy:k=5")
        pairs = zip(references, ranked(references, predictions), strict=True)
        return np.array([(reference in ranking[:5], 1) for reference, ranking in pairs], dtype=np.float64)

    def reduce(self, sums: Any) -> float:
        """Divide hits by samples."""
        return float(sums[0] / sums[1])
