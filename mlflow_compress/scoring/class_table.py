"""The logits of all classes for all samples, with the true classes: as a table, in the file of statistics, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlflow_compress.networks.class_scores import Ranking
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.untrusted import Malformed

POOL = "class_scores"  # name of the table in the file of statistics
_HEAD = ("sample", "reference")  # the columns before those of the classes
_LABELS, _PROBABILITIES = "labels", "probabilities"
_NEVER = -3e38  # the logit of a probability of 0 in the file, which holds finite numbers


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The scores of a classifier.

    Attributes:
        labels: The labels of all classes.
        true: The index of each sample's true class [samples].
        logits: The logits [samples, classes].
    """

    labels: tuple[Any, ...]
    true: Any
    logits: Any

    @classmethod
    def of(cls, references: Sequence[Any], predictions: Sequence[Any]) -> ClassTable:
        """Build the table from references and predictions (see `Metric.takes`, kind `scores`).

        Raises:
            ValueError: A prediction has no scores, one is not a number, no logit of a sample is finite, or the classes
                do not include the reference.
        """
        import numpy as np

        references = [reference.item() if hasattr(reference, "item") else reference for reference in references]
        if predictions and all(isinstance(prediction, Ranking) for prediction in predictions):
            labels = predictions[0].classes
            if all(prediction.classes is labels or prediction.classes == labels for prediction in predictions):
                logits = np.stack([prediction.logits for prediction in predictions])
                return cls(labels, _indices(references, labels), _with_finite(logits))
        rows = [_scores_of(prediction) for prediction in predictions]
        labels = tuple(dict.fromkeys(label for row in rows for label in row))
        if _sorted(labels) is not None:
            labels = _sorted(labels) or labels
        logits = np.array([[row.get(label, -np.inf) for label in labels] for row in rows], dtype=np.float64)
        return cls(labels, _indices(references, labels), _with_finite(logits))

    @classmethod
    def read(cls, statistics: Statistics) -> ClassTable:
        """Rebuild the table from `statistics`, which may come from an untrusted file.

        Raises:
            Malformed: They are not such a table.
        """
        import numpy as np

        values, columns = statistics.values, statistics.columns
        try:
            labels = tuple(json.loads(column) for column in columns[len(_HEAD) :])
            hash(labels)
        except (ValueError, TypeError, RecursionError) as error:
            raise Malformed("The labels of the class scores are not valid.") from error
        true = values[:, 1].astype(np.int64) if columns[: len(_HEAD)] == _HEAD and labels else np.array([-1])
        if not len(true) or true.min() < 0 or true.max() >= len(labels):
            raise Malformed("The class scores are not a table of samples and classes.")
        logits = values[:, len(_HEAD) :]
        return cls(labels, true, np.where(logits <= _NEVER, -np.inf, logits))

    def statistics(self) -> Statistics:
        """Return the table for the file of statistics: sample, index of the true class, and the logits."""
        return Statistics(items(self), item_names(self))

    @cached_property
    def log_probabilities(self) -> Any:
        """The logarithm of each class's probability, float64 [samples, classes]."""
        import numpy as np

        logits = self.logits.astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    @property
    def answers(self) -> Any:
        """The index of the best class of each sample [samples]."""
        return self.logits.argmax(axis=1)


def items(table: ClassTable) -> Any:
    """Return a table as an array [samples, 2 + classes]: sample, index of the true class, and the logits."""
    import numpy as np

    logits = np.maximum(table.logits, _NEVER)
    return np.column_stack([np.arange(len(table.true)), table.true, logits]).astype(np.float64)


def item_names(table: ClassTable) -> tuple[str, ...]:
    """Return the names of the columns of `items`; those of the classes are the labels as JSON."""
    return (*_HEAD, *(json.dumps(label, ensure_ascii=False, default=str) for label in table.labels))


def with_scores(predictions: Sequence[Any], statistics: Statistics) -> list[Ranking]:
    """Return answers from a table of predictions together with their scores from the file of statistics.

    Raises:
        Malformed: The two do not belong together.
    """
    table = ClassTable.read(statistics)
    if len(predictions) != len(table.true):
        raise Malformed(f"There are {len(predictions)} predictions, and scores of {len(table.true)} samples.")
    answers = [prediction if isinstance(prediction, list) else [prediction] for prediction in predictions]
    pairs = zip(answers, table.logits, strict=True)
    return [Ranking(labels, table.labels, logits) for labels, logits in pairs]


def _scores_of(prediction: Any) -> dict[Any, float]:
    """Return the logarithm of each label's probability for one prediction."""
    import numpy as np

    if isinstance(prediction, Ranking):
        return dict(zip(prediction.classes, map(float, prediction.logits), strict=True))
    if isinstance(prediction, Mapping) and prediction.keys() == {_LABELS, _PROBABILITIES}:
        prediction = dict(zip(prediction[_LABELS], prediction[_PROBABILITIES], strict=True))
    if not isinstance(prediction, Mapping) or not prediction:
        raise ValueError("a prediction must map each label to its probability")
    values = np.array(list(prediction.values()), dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise ValueError("a probability is negative or not a number")
    with np.errstate(divide="ignore"):
        return dict(zip(prediction, map(float, np.log(values)), strict=True))


def _with_finite(logits: Any) -> Any:
    """Return logits [samples, classes] that have a finite maximum for each sample.

    Raises:
        ValueError: A sample has no finite logit, or one is not a number.
    """
    import numpy as np

    if logits.size and not (is_valid := np.isfinite(logits.max(axis=1))).all():  # the maximum of NaN is NaN
        raise ValueError(f"sample {np.flatnonzero(~is_valid)[0]} has no finite score")
    return logits


def _indices(references: Sequence[Any], labels: Sequence[Any]) -> Any:
    import numpy as np

    number = {label: index for index, label in enumerate(labels)}
    try:
        return np.array([number[reference] for reference in references], dtype=np.int64)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the reference {error} is not one of the model's classes") from error


def _sorted(labels: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return labels in order, so that two runs have the same order; None if they can't be compared."""
    try:
        return tuple(sorted(labels))
    except TypeError:
        return None
