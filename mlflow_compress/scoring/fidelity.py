"""How far a compressed model's answers are from the original's on the scored samples, and which samples changed.

Two models with the same accuracy may be wrong on different samples: these numbers show that.

Source: Dutta et al., Accuracy is not all you need, 2024 (flips, KL divergence); Kullback and Leibler, On information
and sufficiency, 1951.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.networks.next_tokens import BINS, NextTokens
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.scoring.confusion import Table
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import AdditiveMetric

_ROUNDED = 1e-12
_LONGEST_TEXT = 500  # characters of a cell


def of_classes(own: ClassTable, original: ClassTable) -> dict[str, float]:
    """Compare the probabilities of all classes on the same samples.

    Returns:
        `quality/top1_agreement`, the share of samples with the same answer; `quality/kl_divergence_nats`, the mean of
        KL(original || variant), and `quality/kl_divergence_reverse_nats`, the mean of KL(variant || original). A
        divergence is infinite if a class is possible for one of the two only.

    Raises:
        ValueError: The two have other samples or classes.
    """
    if own.labels != original.labels or own.logits.shape != original.logits.shape or (own.true != original.true).any():
        raise ValueError("these scores belong to different samples or classes")
    return {
        "quality/top1_agreement": float((own.answers == original.answers).mean()),
        "quality/kl_divergence_nats": _divergence(original.log_probabilities, own.log_probabilities),
        "quality/kl_divergence_reverse_nats": _divergence(own.log_probabilities, original.log_probabilities),
    }


def of_tokens(own: NextTokens, original: NextTokens) -> dict[str, float]:
    """Compare the predictions of the same tokens by two language models.

    Each keeps the log-probabilities of its likeliest tokens only. So the divergences are those of coarser
    distributions: the tokens that both keep, and bins of all others. Merging tokens never increases a divergence, so it
    is a lower bound of that of the whole vocabulary.

    Source: Cover and Thomas, Elements of information theory, theorem 2.7.1 (log sum inequality).

    Returns:
        `quality/top1_agreement`, the share of tokens with the same likeliest token;
        `quality/kl_divergence_lower_bound_nats`, the mean over the first tokens of a lower bound of
        KL(original || variant); and the same the other way round.

    Raises:
        ValueError: The two belong to other tokens.
    """
    import numpy as np

    if not len(own.targets) or not np.array_equal(own.targets, original.targets):
        raise ValueError("these predictions belong to different tokens")
    numbers = {"quality/top1_agreement": float((own.best == original.best).mean())}
    if not len(own.scores) or own.scores.shape != original.scores.shape:
        return numbers
    log_own, log_original = _on_common_tokens(own.scores, original.scores)
    return {
        **numbers,
        "quality/kl_divergence_lower_bound_nats": _divergence(log_original, log_own),
        "quality/kl_divergence_reverse_lower_bound_nats": _divergence(log_own, log_original),
    }


def _on_common_tokens(own: Any, original: Any) -> tuple[Any, Any]:
    """Return two tables of log-probabilities [tokens, bins + kept ids]: the bins of other tokens, and the common ones.

    Args:
        own: Table of one model (see `NextTokens.scores`).
        original: Table of the other.
    """
    import numpy as np

    count = (own.shape[1] - BINS) // 2
    (rest, ids, logs), (other_rest, other_ids, other_logs) = (
        (side[:, :BINS].astype(float), side[:, BINS:-count].astype(int), side[:, -count:].astype(float))
        for side in (own, original)
    )
    same = ids[:, :, None] == other_ids[:, None, :]
    is_common, is_others = same.any(axis=2), same.any(axis=1)
    aligned = np.take_along_axis(other_logs, same.argmax(axis=2), axis=1)
    bins = _with_unmatched(rest, ids, logs, is_common), _with_unmatched(other_rest, other_ids, other_logs, is_others)
    common = (np.where(is_common, side, -np.inf) for side in (logs, aligned))
    own_table, original_table = (np.column_stack(pair) for pair in zip(bins, common, strict=True))
    return own_table, original_table


def _with_unmatched(bins: Any, ids: Any, logs: Any, is_common: Any) -> Any:
    """Return the log-probabilities of the bins with the kept tokens that the other model does not keep."""
    import numpy as np

    total, rows = bins.copy(), np.arange(len(bins))
    for column in range(ids.shape[1]):  # of each row one token at a time, so no bin is written twice
        places = rows, ids[:, column] % BINS
        total[places] = np.logaddexp(total[places], np.where(is_common[:, column], -np.inf, logs[:, column]))
    return total


def _divergence(log_p: Any, log_q: Any) -> float:
    """Return the mean over the samples of KL(p || q), in nats."""
    import numpy as np

    probability = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = np.where(probability > 0, probability * (log_p - log_q), 0.0)
    return max(0.0, float(terms.sum(axis=1).mean()))


@dataclass(frozen=True, eq=False)
class Flips:
    """The samples whose score compression changed.

    Attributes:
        before: The original's score of each sample [samples].
        after: The variant's score of each sample.
        greater_is_better: The direction of the score.
    """

    before: Any
    after: Any
    greater_is_better: bool

    @classmethod
    def of(
        cls, metric: AdditiveMetric, own: Statistics, original: Statistics, *, greater_is_better: bool | None = None
    ) -> Flips | None:
        """Compare the scores of single samples; None if single samples have no score, as in F1 or mAP.

        Args:
            metric: The metric of both.
            own: The variant's statistics.
            original: The original's statistics.
            greater_is_better: The direction of the score; None: that of the metric's class.
        """
        import numpy as np

        if own.columns or original.columns or own.values.shape != original.values.shape:
            return None
        before, after = (
            np.array([metric.reduce(row) for row in statistics.values], dtype=np.float64)
            for statistics in (original, own)
        )
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            return None
        return cls(before, after, metric.greater_is_better if greater_is_better is None else greater_is_better)

    @property
    def gains(self) -> Any:
        """How much better each sample became [samples]; below 0 for worse ones."""
        gains = self.after - self.before
        return gains if self.greater_is_better else -gains

    def numbers(self) -> dict[str, float]:
        """Return the share of samples that changed, and how many became worse and better.

        For a score that is 0 or 1, such as accuracy: how many became wrong and right.
        """
        worse, better = int((self.gains < -_ROUNDED).sum()), int((self.gains > _ROUNDED).sum())
        return {
            "quality/flips": (worse + better) / len(self.gains),
            "quality/samples_worse": float(worse),
            "quality/samples_better": float(better),
        }

    def table(self, references: Sequence[Any], original: Sequence[Any], own: Sequence[Any]) -> Table:
        """Return the changed samples with their answers, as a table like those of MLflow's `log_table`.

        Args:
            references: The reference of each sample.
            original: The original's answers; empty if unknown.
            own: The variant's answers.
        """
        import numpy as np

        is_right = bool(np.isin(self.before, (0, 1)).all() and np.isin(self.after, (0, 1)).all())
        words = ("became wrong", "became right") if is_right else ("became worse", "became better")
        gains = self.gains
        rows = []
        for index in np.flatnonzero(np.abs(gains) > _ROUNDED).tolist():
            answers = [_cut(original[index]) if original else None, _cut(own[index])]
            scores = [float(self.before[index]), float(self.after[index])]
            rows.append([index, words[int(gains[index] > 0)], _cut(references[index]), *answers, *scores])
        columns = ["sample", "change", "reference", "original", "variant", "original_score", "variant_score"]
        return {"columns": columns, "data": rows}


def chosen_metric(metrics: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> str:
    """Return the name of the metric that judges single samples: that of the lowest rank; empty if there is none."""
    names = [
        name
        for name, metric in metrics.items()
        if isinstance(metric, AdditiveMetric) and name in statistics and not statistics[name].columns
    ]
    return min(names, key=lambda name: metrics[name].facts.rank, default="")


def _cut(value: Any) -> Any:
    if isinstance(value, (int, float)) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
