"""Average precision, precision and recall of matched boxes, for all images or for drawn images.

An image that is drawn twice counts its boxes twice. Boxes are sorted once, and average precision needs only the correct
boxes, so that hundreds of resamples of thousands of images take seconds.

Source: ultralytics' ap_per_class and compute_ap (8.4), whose numbers it reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

THRESHOLDS = 10
_RECALLS, _CONFIDENCES = 101, 1000  # points of the curves
_SMOOTHED = 101  # points over which F1 is averaged before its maximum is searched
_TINY = 1e-16


@dataclass(frozen=True)
class Curves:
    """Results of matched boxes, for each class with true boxes.

    Attributes:
        precision, recall: [classes], at the confidence with the highest mean F1 over classes.
        average_precision: [classes, 10], at intersection over union 0.5, 0.55, ... 0.95.
    """

    precision: Any
    recall: Any
    average_precision: Any


class MatchedBoxes:
    """The boxes of all images.

    Args:
        true_image: index of the image of each true box.
        true_class: number of its class.
        image: index of the image of each predicted box, the best box first.
        label: number of its class.
        score: its confidence.
        is_right: [boxes, 10], whether it matches a true box at each threshold.
    """

    def __init__(self, true_image: Any, true_class: Any, image: Any, label: Any, score: Any, is_right: Any) -> None:
        import numpy as np

        self._true_image = true_image
        classes, self._true_class = np.unique(true_class, return_inverse=True)
        self._count = len(classes)
        counts = np.flatnonzero(np.isin(label, classes))  # boxes of other classes do not count
        class_index = np.searchsorted(classes, label[counts])
        by_class = np.argsort(class_index, kind="stable")
        order, self._class = counts[by_class], class_index[by_class]
        self._image, self._score = image[order], np.asarray(score, dtype=np.float64)[order]
        self._is_right = is_right[order].astype(np.int64)
        self._ends = np.cumsum(np.bincount(self._class, minlength=self._count))
        self._starts = np.concatenate([[0], self._ends[:-1]]).astype(np.int64)
        threshold, self._hits = np.nonzero(self._is_right.T)
        self._group = threshold * self._count + self._class[self._hits]  # one number per threshold and class
        self._confidences = np.linspace(0, 1, _CONFIDENCES)
        self._reach = np.stack([self._down_to(start, end) for start, end in zip(self._starts, self._ends, strict=True)])

    def curves(self, times: Any) -> Curves:
        """Compute the curves of drawn images.

        Args:
            times: how often each image is drawn: integers [images].

        Returns:
            The curves of the classes with true boxes in drawn images.
        """
        import numpy as np

        true = np.zeros(self._count, dtype=np.int64)
        np.add.at(true, self._true_class, times[self._true_image])
        weights = times[self._image]
        counts = self._within_class(weights)
        precision, recall = self._at_best_f1(weights, counts, true)
        return Curves(precision, recall, self._average_precision(weights, counts, true)[true > 0])

    def _down_to(self, start: int, end: int) -> Any:
        """Return, for each confidence, the position after the last box of a class with at least that confidence."""
        import numpy as np

        return start + np.searchsorted(-self._score[start:end], -self._confidences, side="right")

    def _within_class(self, weights: Any) -> Any:
        """Return the cumulative sums of weights within each class, from its best box on."""
        import numpy as np

        sums = np.cumsum(weights)
        return sums - np.concatenate([[0], sums])[self._starts][self._class]

    def _average_precision(self, weights: Any, counts: Any, true: Any) -> Any:
        """Return the area under the envelope of precision over recall, with 101 points: [classes, 10].

        Between two correct boxes the envelope has the value at the next one, and after the last one it is 0.
        """
        import numpy as np

        has_weight = weights[self._hits] > 0
        hits, group = self._hits[has_weight], self._group[has_weight]
        size = THRESHOLDS * self._count
        if not len(hits):
            return np.zeros((self._count, THRESHOLDS))
        is_first = np.diff(group, prepend=-1) > 0
        right = np.cumsum(weights[hits])
        right = right - (right - weights[hits])[is_first][np.cumsum(is_first) - 1]
        precision, recall = right / counts[hits], right / (true[group % self._count] + _TINY)
        offset = 2.0 * (size - group)  # keeps the maximum of one group out of the next
        envelope = np.maximum.accumulate((precision + offset)[::-1])[::-1] - offset
        reached = np.searchsorted(np.linspace(0, 1, _RECALLS), recall, side="left")
        recall_before = np.where(is_first, 0, np.concatenate([[0], reached[:-1]]))
        areas = envelope * (reached - recall_before - is_first / 2)  # the first point of a curve counts half
        summed = np.bincount(group, areas, minlength=size)
        return summed.reshape(THRESHOLDS, self._count).T / (_RECALLS - 1)

    def _at_best_f1(self, weights: Any, counts: Any, true: Any) -> tuple[Any, Any]:
        """Return precision and recall [classes] at overlap 0.5 and the confidence of the best mean F1."""
        import numpy as np

        has_boxes = true > 0
        if not has_boxes.any():
            return np.zeros(0), np.zeros(0)
        precision, recall = self._by_confidence(weights, counts, true)
        precision, recall = precision[has_boxes], recall[has_boxes]
        f1 = (2 * precision * recall / (precision + recall + _TINY)).mean(axis=0)
        ends = np.ones(_SMOOTHED // 2)
        padded = np.concatenate([ends * f1[0], f1, ends * f1[-1]])
        best = np.convolve(padded, np.ones(_SMOOTHED) / _SMOOTHED, mode="valid").argmax()
        return precision[:, best], recall[:, best]

    def _by_confidence(self, weights: Any, counts: Any, true: Any) -> tuple[Any, Any]:
        """Return precision and recall at overlap 0.5 for each confidence [classes, 1000].

        Between two boxes both are interpolated, from the last copy of the better box to the first copy of the next.
        """
        import numpy as np

        count = len(weights)
        if not count:
            return np.zeros(self._reach.shape), np.zeros(self._reach.shape)
        is_right = self._is_right[:, 0]
        right = self._within_class(weights * is_right)
        index = np.arange(count)
        last_index = np.concatenate([[-1], np.maximum.accumulate(np.where(weights > 0, index, -1))])
        following = np.concatenate([np.minimum.accumulate(np.where(weights > 0, index, count)[::-1])[::-1], [count]])
        above, below = last_index[self._reach], following[self._reach]
        has_above, has_below = above >= self._starts[:, None], below < self._ends[:, None]
        above, below = np.maximum(above, 0), np.minimum(below, count - 1)
        others, other_right = counts[below] - weights[below], right[below] - (weights * is_right)[below]
        labels = (true + _TINY)[:, None]

        def curve(at_above: Any, at_below: Any, without: float) -> Any:
            gap = np.where(has_below, self._score[above] - self._score[below], 1)
            slope = (at_below - at_above) / np.where(gap > 0, gap, 1)
            between = slope * (self._score[above] - self._confidences) + at_above
            return np.where(has_above, np.where(has_below, between, at_above), without)

        precision = curve(
            right[above] / np.maximum(counts[above], 1), (other_right + is_right[below]) / (others + 1), without=1
        )
        recall = curve(right[above] / labels, (other_right + is_right[below]) / labels, without=0)
        is_found = (has_above | has_below).any(axis=1)[:, None]
        return precision * is_found, recall * is_found
