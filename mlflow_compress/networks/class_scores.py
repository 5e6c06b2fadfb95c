"""The answer of a classifier with the scores of all its classes, for metrics that need more than the best label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_SUM_ERROR = 0.01  # of probabilities in half precision


class Ranking(list[Any]):
    """The best labels of one sample, best first, together with the logits of all classes.

    As a list it contains only the labels.

    Attributes:
        classes: The labels of all classes: one tuple for all samples.
        logits: The logit of each class: a numpy array, float32 [classes].
    """

    def __init__(self, labels: Sequence[Any], classes: tuple[Any, ...], logits: Any) -> None:
        super().__init__(labels)
        self.classes, self.logits = classes, logits

    def shown(self) -> Any:
        """Return the answer as a table shows it: one label alone, several as a list."""
        return self[0] if len(self) == 1 else list(self)


def taken(takes: str, predictions: Sequence[Any]) -> Sequence[Any]:
    """Return predictions in the form for a metric: with the scores, or only the labels; only the text of several.

    Args:
        takes: See `Metric.takes`.
        predictions: Answers of a model.
    """
    if takes == "scores":
        return predictions
    if takes == "texts":
        return [
            answer["text"] if isinstance(answer, Mapping) and "text" in answer else answer for answer in predictions
        ]
    return [answer.shown() if isinstance(answer, Ranking) else answer for answer in predictions]


def rankings(outputs: Any, classes: tuple[Any, ...], count: int = 1) -> list[Ranking]:
    """Return the answers to a classifier's outputs.

    Args:
        outputs: A tensor of logits or probabilities [samples, classes].
        classes: The labels of all classes.
        count: The number of labels in an answer.
    """
    outputs = outputs.float()
    best = outputs.argmax(-1, keepdim=True) if count == 1 else outputs.topk(min(count, outputs.shape[-1])).indices
    rows = zip(best.tolist(), as_logits(outputs).cpu().numpy(), strict=True)
    return [Ranking([classes[index] for index in indices], classes, logits) for indices, logits in rows]


def best_classes(scores: Any, axis: int = -1) -> Any:
    """Return the index of the greatest score along an axis; NaN in place of it if the greatest score is not finite."""
    best = scores.argmax(axis)
    is_number = scores.amax(axis).isfinite()
    return best if is_number.all() else best.float().masked_fill(~is_number, math.nan)


def lacks_number(answer: Any) -> bool:
    """Return whether a model's scores for a sample, or for a part of it, are not numbers, so that it has no answer."""
    if isinstance(answer, Ranking):
        return not math.isfinite(answer.logits.max())
    if isinstance(answer, list):
        return any(map(lacks_number, answer))
    return isinstance(answer, float) and math.isnan(answer)


def as_logits(outputs: Any) -> Any:
    """Return a classifier's outputs as logits [samples, classes]: the logarithm of probabilities, else unchanged.

    Outputs are probabilities if none is negative and each row sums to 1, as after a softmax.
    """
    are_probabilities = bool((outputs >= 0).all()) and bool(((outputs.sum(-1) - 1).abs() <= _SUM_ERROR).all())
    return outputs.log() if are_probabilities else outputs
