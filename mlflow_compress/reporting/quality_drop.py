"""The allowed drop of quality, and the loss of a row's quality with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Row, Scale
from mlflow_compress.reporting import metric_facts
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.ranking import direction, lacking
from mlflow_compress.reporting.table_text import DIFFERENCE, label, number

_WHOLE: Mapping[str, float] = {  # the range of each scale that can be lost
    "share": 1.0,
    "error_rate": 1.0,
    "hundred": 100.0,
    "correlation": 1.0,
}
_FEWEST = 10  # samples needed for an interval
_ONE_SIDED = 0.025  # probability that one end of a 95 % interval is wrong
_ROUNDED = 1e-6
NO_DIFFERENCE = "there is no difference from the original on the same samples"
LOOK = "check who logged the run, and how"


@dataclass(frozen=True)
class Drop:
    """The quality that may be lost.

    Attributes:
        amount: the greatest loss.
        relative: whether the amount is a fraction of the original's quality; otherwise it is in the score's own unit.
        against_fp32: whether the rule behind it means an original in FP32.
    """

    amount: float
    relative: bool
    against_fp32: bool = False

    @classmethod
    def read(cls, text: str) -> Drop:
        """Read `1%` (a fraction of the original's quality) or `0.005` (in the score's own unit).

        Raises:
            RecipeError: it is neither, or allows a loss of everything.
        """
        try:
            amount = float(text.strip().removesuffix("%"))
        except ValueError:
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise RecipeError(
                f"{text!r} is not a valid quality drop. Give a part of the original's quality (1%) or a number (0.005)."
            )
        relative = text.strip().endswith("%")
        if relative and amount >= 100:
            raise RecipeError(f"A drop of {text} allows all quality to be lost. Give less than 100%.")
        return cls(amount / 100 if relative else amount, relative)

    def refuse_all(self, name: str, known: Known) -> None:
        """Raise where a score's whole scale may be lost: then percent or points were meant.

        Args:
            name: the name of the score, `quality/accuracy`.
            known: the facts that the runs record about their metrics.

        Raises:
            RecipeError: with the correct form of the drop.
        """
        scale = metric_facts.of(name, known).scale or ""
        if self.relative or self.amount < _WHOLE.get(scale, math.inf):
            return
        amount, metric = f"{self.amount:g}", label(name, "en", known)
        point = _WHOLE[scale] / 100
        raise RecipeError(
            f"--max-quality-drop {amount} allows all of {metric} to be lost: its range is 0 to {_WHOLE[scale]:g}. "
            f"Write 1% for a hundredth of the original's value, or {point:g} for one point of {metric}."
        )

    def __str__(self) -> str:
        """Return the drop as text: `1 % of the original's`."""
        return f"{100 * self.amount:g} % of the original's" if self.relative else f"{self.amount:g}"

    def say(self, lost: float) -> str:
        """Return a loss as text in the unit of the drop; a gain where it is below 0."""
        return f"{self._size(lost)} {'gained' if lost < 0 else 'lost'}"

    def say_between(self, low: float, high: float) -> str:
        """Return an interval as text in the unit of the drop, the good end first."""
        if (low < 0) == (high < 0):
            return f"{self._size(low)} to {self.say(high)}"
        return f"{self.say(low)} to {self.say(high)}"

    def _size(self, lost: float) -> str:
        return f"{number(100 * abs(lost), 3)} %" if self.relative else number(abs(lost), 3)


@dataclass(frozen=True)
class Loss:
    """The loss of the score that represents a row's quality, in the unit of a `Drop`; a gain is below 0.

    Attributes:
        value: the loss; None where it is unknown, and `reason` explains why.
        low, high: the good and the bad end of the 95 % interval; None where the noise is unknown.
        reason: why something is unknown, or what the interval is based on.
        advice: what to do next.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    advice: str = ""


def loss_of(row: Row, name: str, drop: Drop, known: Known) -> Loss:
    """Return the loss of a row's score.

    Args:
        row: a row with the score and its difference from the original's.
        name: the name of the score.
        drop: the drop whose unit the loss has.
        known: the facts that the runs record about their metrics.

    Source: MLPerf Inference rules, "Quality targets", for a relative drop; there a word error rate counts by its
    complement, a perplexity by its inverse.
    """
    difference = row.values.get(name + DIFFERENCE)
    if difference is None:
        return Loss(reason=NO_DIFFERENCE, advice="score the original and the variant on the same data by one protocol")
    better, scale = direction(name, known), metric_facts.of(name, known).scale
    if better is None:
        return Loss(reason=lacking(name, "direction"))
    if drop.relative and scale is None and not better:
        return Loss(reason=f"{lacking(name, 'scale')}. Or give the drop in the score's own unit")
    original, full_score = row.values[name] - difference, _WHOLE.get(scale or "")
    if impossible := [value for value in (row.values[name], original) if not _can_be(value, name, scale, better)]:
        return Loss(reason=f"{number(impossible[0])} {label(name, 'en', known)} is impossible", advice=LOOK)
    quality = full_score - original if full_score and not better else original  # what there is to lose
    if quality <= 0 and (full_score or drop.relative):
        text = f"{number(original)} {label(name, 'en', known)}"
        return Loss(reason=f"the original has no quality to lose: {text}", advice="measure the trained original")
    in_terms = _in_terms(drop, quality, counts_by_inverse=not (better or full_score))
    sign = -1.0 if better else 1.0
    value = in_terms(sign * difference) + 0.0  # avoids -0.0
    samples = row.values.get(metric_facts.COUNT, 0)
    ends = [row.values[end] for side in ("_low", "_high") if (end := f"{name}{DIFFERENCE}{side}") in row.values]
    if len(ends) < 2 or samples < _FEWEST:
        return _without_interval(value, samples)
    low, high = sorted(in_terms(sign * end) for end in ends)
    if not (low <= value <= high and math.isfinite(value)):
        return Loss(reason="these numbers contradict each other", advice=LOOK)
    loss = Loss(value, low, high)
    if scale == "unbounded":  # such as a perplexity, which is the same only for equal outputs
        return loss
    span = full_score or abs(quality)
    bad_end = in_terms(sign * difference + span * _unseen(samples))
    return loss if bad_end <= high else _with_unseen(loss, bad_end, drop, in_terms(span), samples)


def _can_be(score: float, name: str, scale: Scale | None, better: bool) -> bool:
    """Return whether a score is within its scale; an error or a perplexity of 0 is not."""
    if scale in ("share", "hundred"):
        return -_ROUNDED <= score <= _WHOLE[scale] + _ROUNDED
    if scale == "correlation":
        return abs(score) <= 1 + _ROUNDED
    least = 1.0 if "perplexity" in name else 0.0
    return better or (score >= least and (scale != "unbounded" or score > 0))


def _unseen(samples: float) -> float:
    """Return the fraction of all samples that may have changed although none of the scored ones did."""
    return float(1 - _ONE_SIDED ** (1 / samples))


def _with_unseen(loss: Loss, bad_end: float, drop: Drop, span: float, samples: float) -> Loss:
    """Return a loss with the bad end that a number of samples may hide, beyond the interval's own.

    Resampling can't show what no sample shows: from samples with equal scores it finds no noise, and from few changed
    samples too little. So one more fraction of all samples may score nothing at all.

    Args:
        loss: the loss, with the interval from resampling.
        bad_end: the loss plus that fraction of the whole scale.
        drop: the allowed drop.
        span: the whole scale, in the unit of the drop.
        samples: the number of scored samples.

    Source: J. A. Hanley and A. Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249, 1983.
    """
    margin = (drop.amount - (loss.value or 0.0)) / span
    needed_samples = math.ceil(math.log(_ONE_SIDED) / math.log1p(-margin)) if 0 < margin < 1 else 0
    advice = (
        f"score at least {needed_samples} samples" if needed_samples else "" if drop.amount else "allow a drop above 0"
    )
    part = number(100 * _unseen(samples), 2)
    reason = f"{samples:.0f} samples may miss a loss that affects {part} % of all samples"
    return replace(loss, high=bad_end, reason=reason, advice=advice)


def _in_terms(drop: Drop, quality: float, counts_by_inverse: bool) -> Callable[[float], float]:
    """Return a function that converts a loss from the score's own unit to the unit of a drop."""
    if not drop.relative:
        return float
    if counts_by_inverse:  # 1 - (1 / own) / (1 / original)
        return lambda lost: lost / (quality + lost) if quality + lost > 0 else -math.inf
    return lambda lost: lost / quality


def _without_interval(value: float, samples: float) -> Loss:
    if samples < _FEWEST:
        reason = f"{samples:.0f} samples are not enough for an interval"
        return Loss(value, reason=reason, advice=f"score at least {_FEWEST} samples; a drop of 1 % needs hundreds")
    return Loss(
        value,
        reason="the difference has no interval: its noise is unknown",
        advice="score the original and the variant in one command, with a metric that sums over samples",
    )
