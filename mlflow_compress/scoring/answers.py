"""Classification: the model's answer, and precision, recall and F1 from the counts of each class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Scale
from mlflow_compress.sockets import AdditiveMetric

_NOT_A_LABEL = (
    "a reference is a mapping, such as boxes, not a label: set metrics that compare such references, for example "
    "map50_95 (compress-bench list metrics)"
)
POSITIVE = "1"  # the positive class unless one is named
_COUNTS = ("right", "predicted", "true")


def ranked(references: Sequence[Any], predictions: Sequence[Any]) -> list[Sequence[Any]]:
    """Return each prediction as labels, best first: one label is a ranking too, and so are labels with probabilities.

    Raises:
        ValueError: a label is NaN, a ranking is empty, or a reference is not a label.
    """
    rankings: list[Sequence[Any]] = []
    for reference, prediction in zip(references, predictions, strict=True):
        if _is_structure(reference):
            raise ValueError(_NOT_A_LABEL)
        is_ranking = isinstance(prediction, (list, tuple)) and not isinstance(reference, (list, tuple))
        if isinstance(prediction, Mapping):
            ranking = _by_probability(prediction)
        else:
            ranking = prediction if is_ranking else [prediction]
        if not len(ranking):
            raise ValueError("a prediction has no label")
        if _is_no_label(reference) or any(map(_is_no_label, ranking)):
            raise ValueError("a label is neither a number nor text")
        rankings.append(ranking)
    return rankings


@dataclass
class ClassCounts(AdditiveMetric):
    """A ratio of counts for each class, and its mean over classes.

    The classes are those of the references and of the predictions, as in scikit-learn; a ratio with denominator 0 is 0.

    Attributes:
        average: mean over the classes (macro), mean weighted by their number of references (weighted), ratio of the
            counts of all classes (micro), or one class only (binary).
        positive: the class for average=binary, as text.
    """

    unit: ClassVar[str] = "ratio"
    scale: ClassVar[Scale | None] = "share"
    greater_is_better: ClassVar[bool] = True
    takes = "labels"

    average: Literal["macro", "micro", "weighted", "binary"] = "macro"
    positive: str = POSITIVE

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        require_binary(self.average, self.positive)

    @abstractmethod
    def ratio(self, right: Any, predicted: Any, true: Any) -> Any:
        """Return the number of each class from its correct answers, all its answers, and all its references."""

    def columns(self, references: Sequence[Any], predictions: Sequence[Any]) -> tuple[str, ...]:
        """Return the names of the three counts of each class."""
        return class_names(references, predictions, self._classes(references, predictions))

    def statistics(self, references: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Count correct answers, answers and references of each class: [samples, 3 * classes]."""
        return class_counts(references, predictions, self._classes(references, predictions))

    def reduce(self, sums: Any) -> float:
        """Average over the classes that occur."""
        import numpy as np

        counts = np.reshape(sums, (-1, len(_COUNTS)))
        if self.average == "micro":
            counts = counts.sum(axis=0, keepdims=True)
        elif self.average != "binary":
            counts = counts[counts.any(axis=1)]  # without the classes of other samples
        ratios = self.ratio(*counts.T)
        return float(np.average(ratios, weights=counts[:, 2] if self.average == "weighted" else None))

    def require_scorable(self, references: Sequence[Any]) -> None:
        """Check that the positive class can be scored (see `Metric.require_scorable`)."""
        if self.average == "binary":
            labels = {str(plain_label(reference)) for reference in references}
            if len(labels - {self.positive}) > 1:
                raise ValueError(self._of_two_classes(sorted(labels)))

    def _classes(self, references: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
        labels = classes_of(references, predictions)
        if self.average != "binary":
            return labels
        positive = [label for label in labels if str(label) == self.positive]
        if not positive or len(labels) > 2:
            raise ValueError(self._of_two_classes(labels))
        return positive

    def _of_two_classes(self, labels: Sequence[Any]) -> str:
        return (
            f"average=binary needs two classes, one of them positive={self.positive}; these are "
            f"{', '.join(map(str, labels[:10]))}. Use positive=LABEL, or average=macro"
        )


def require_binary(average: str, positive: str) -> None:
    """Check that an option `positive` is not without effect.

    Raises:
        RecipeError: It names a class, but the average is over all classes.
    """
    if average != "binary" and positive != POSITIVE:
        raise RecipeError(f"positive={positive} names one class. It needs average=binary, not average={average}.")


def classes_of(references: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
    """Return the classes of the references and answers, in the order in which they occur."""
    answers = [ranking[0] for ranking in ranked(references, predictions)]
    return list(dict.fromkeys(plain_label(label) for label in (*references, *answers)))


def class_names(
    references: Sequence[Any], predictions: Sequence[Any], classes: Sequence[Any] | None = None
) -> tuple[str, ...]:
    """Return the names of the three counts of each class (see `class_counts`)."""
    labels = classes_of(references, predictions) if classes is None else classes
    return tuple(f"{label!r} {count}" for label in labels for count in _COUNTS)


def class_counts(references: Sequence[Any], predictions: Sequence[Any], classes: Sequence[Any] | None = None) -> Any:
    """Count correct answers, answers and references of each class: [samples, 3 * classes].

    Args:
        references: one label for each sample.
        predictions: one label or ranking for each sample.
        classes: the classes to count; None: all.
    """
    import numpy as np

    labels = classes_of(references, predictions) if classes is None else classes
    number = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(references), len(number), len(_COUNTS)))
    for index, (reference, ranking) in enumerate(zip(references, ranked(references, predictions), strict=True)):
        true, answer = number.get(plain_label(reference)), number.get(plain_label(ranking[0]))
        if answer is not None:
            counts[index, answer, :2] = answer == true, 1
        if true is not None:
            counts[index, true, 2] = 1
    return counts.reshape(len(references), -1)


def over(part: Any, whole: Any) -> Any:
    """Divide counts; return 0 where the denominator is 0."""
    import numpy as np

    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _by_probability(prediction: Mapping[Any, Any]) -> list[Any]:
    """Return the labels of a prediction that maps them to probabilities, best first."""
    pairs = prediction.items()
    if prediction.keys() == {"labels", "probabilities"}:
        pairs = zip(prediction["labels"], prediction["probabilities"], strict=True)  # type: ignore[assignment]
    return [label for label, _ in sorted(pairs, key=lambda pair: -pair[1])]


def plain_label(label: Any) -> Any:
    """Convert a label that is a scalar of an array library to Python."""
    return label.item() if hasattr(label, "item") else label


def _is_structure(reference: Any) -> bool:
    """Return whether a reference is a mapping, or a list of mappings."""
    if type(reference) in (str, int):  # nearly all: there may be millions
        return False
    return isinstance(reference, Mapping) or (
        isinstance(reference, (list, tuple)) and any(isinstance(part, Mapping) for part in reference)
    )


def _is_no_label(label: Any) -> bool:
    if type(label) in (str, int):  # nearly all: there may be millions
        return False
    return label is None or (isinstance(plain_label(label), float) and bool(label != label))
