"""How much quality may be lost, and how much of a row's is: with the ends of the interval of that."""

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

_WHOLE: Mapping[str, float] = {"share": 1.0, "error_rate": 1.0, "hundred": 100.0}  # from worst to perfect, by scale
_FEWEST = 10  # samples: fewer give no interval
_ONE_SIDED = 0.025  # chance that one end of a 95 % interval is wrong
_ROUNDED = 1e-6
NO_DIFFERENCE = "no difference from the original on the same samples is known"
LOOK = "look at who logged the run, and how"


@dataclass(frozen=True)
class Drop:
    """How much quality may be lost.

    Attributes:
        amount: the most that may be lost.
        relative: as a part of the original's quality; otherwise in the score's own unit.
        against_fp32: whether the rule that it is of means an original in FP32.
    """

    amount: float
    relative: bool
    against_fp32: bool = False

    @classmethod
    def read(cls, text: str) -> Drop:
        """Read `1%` (a part of the original's quality) or `0.005` (in the score's own unit).

        Raises:
            RecipeError: it is neither, or allows that all is lost.
        """
        try:
            amount = float(text.strip().removesuffix("%"))
        except ValueError:
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise RecipeError(f"{text!r} is no drop of quality. Give a part of the original's, 1%, or a number, 0.005.")
        relative = text.strip().endswith("%")
        if relative and amount >= 100:
            raise RecipeError(f"A drop of {text} allows that all quality is lost. Give less than 100%.")
        return cls(amount / 100 if relative else amount, relative)

    def refuse_all(self, name: str, known: Known) -> None:
        """Raise where a score's whole scale may be lost: then somebody meant percent, or points.

        Args:
            name: of the score, `quality/accuracy`.
            known: what the runs say of their metrics.

        Raises:
            RecipeError: it says what to write.
        """
        scale = metric_facts.of(name, known).scale or ""
        if self.relative or self.amount < _WHOLE.get(scale, math.inf):
            return
        given, metric = f"{self.amount:g}", label(name, "en", known)
        point = _WHOLE[scale] / 100
        raise RecipeError(
            f"--max-quality-drop {given} allows all of {metric} to be lost: it goes from 0 to {_WHOLE[scale]:g}. Write "
            f"1% for a hundredth of the original's, or {point:g} for one point of {metric}."
        )

    def __str__(self) -> str:
        """Say it as a person would: `1 % of the original's`."""
        return f"{100 * self.amount:g} % of the original's" if self.relative else f"{self.amount:g}"

    def say(self, lost: float) -> str:
        """Say how much was lost in its own terms; what was gained, where it is below 0."""
        return f"{self._size(lost)} {'gained' if lost < 0 else 'lost'}"

    def say_between(self, low: float, high: float) -> str:
        """Say an interval in its own terms, the good end first."""
        if (low < 0) == (high < 0):
            return f"{self._size(low)} to {self.say(high)}"
        return f"{self.say(low)} to {self.say(high)}"

    def _size(self, lost: float) -> str:
        return f"{number(100 * abs(lost), 3)} %" if self.relative else number(abs(lost), 3)


@dataclass(frozen=True)
class Loss:
    """What a row lost of the score that stands for its quality, in the terms of a `Drop`; below 0 it gained.

    Attributes:
        value: what was lost; None where that can't be said, and `reason` says why.
        low, high: the 95 % interval's good and bad end; None where the noise is not known.
        reason: why something is not known, or what the interval stands on.
        advice: what to do about it.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    advice: str = ""


def loss_of(row: Row, name: str, drop: Drop, known: Known) -> Loss:
    """Return what a row lost of a score.

    Args:
        row: with a score, and its difference from the original's.
        name: of the score.
        drop: in whose terms the loss is said.
        known: what the runs say of their metrics.

    Source: MLPerf Inference rules, "Quality targets", for a relative drop; a word error rate counts by its complement
    there, a perplexity by its inverse.
    """
    difference = row.values.get(name + DIFFERENCE)
    if difference is None:
        return Loss(reason=NO_DIFFERENCE, advice="score the original and the variant on the same data by one protocol")
    better, scale = direction(name, known), metric_facts.of(name, known).scale
    if better is None:
        return Loss(reason=lacking(name, "direction"))
    if drop.relative and scale is None and not better:
        return Loss(reason=f"{lacking(name, 'scale')}. Or give the drop in the score's own unit")
    original, whole = row.values[name] - difference, _WHOLE.get(scale or "")
    if wrong := [each for each in (row.values[name], original) if not _can_be(each, name, scale, better)]:
        return Loss(reason=f"{number(wrong[0])} {label(name, 'en', known)} can't be", advice=LOOK)
    quality = whole - original if whole and not better else original  # what there is to lose
    if quality <= 0 and (whole or drop.relative):
        said = f"{number(original)} {label(name, 'en', known)}"
        return Loss(reason=f"the original has no quality to lose: {said}", advice="measure the trained original")
    in_terms = _in_terms(drop, quality, counts_by_inverse=not (better or whole))
    sign = -1.0 if better else 1.0
    value = in_terms(sign * difference) + 0.0  # no loss is no -0.0
    samples = row.values.get(metric_facts.COUNT, 0)
    ends = [row.values[end] for side in ("_low", "_high") if (end := f"{name}{DIFFERENCE}{side}") in row.values]
    if len(ends) < 2 or samples < _FEWEST:
        return _without_interval(value, samples)
    low, high = sorted(in_terms(sign * end) for end in ends)
    if not (low <= value <= high and math.isfinite(value)):
        return Loss(reason="these numbers contradict each other", advice=LOOK)
    seen = Loss(value, low, high)
    if scale == "unbounded":  # as a perplexity, which is the same only where the outputs are
        return seen
    span = whole or abs(quality)
    bad_end = in_terms(sign * difference + span * _unseen(samples))
    return seen if bad_end <= high else _with_unseen(seen, bad_end, drop, in_terms(span), samples)


def _can_be(score: float, name: str, scale: Scale | None, better: bool) -> bool:
    """Return whether a score is one that its scale has; an error or a perplexity of nothing is none."""
    if scale in ("share", "hundred"):
        return -_ROUNDED <= score <= _WHOLE[scale] + _ROUNDED
    least = 1.0 if "perplexity" in name else 0.0
    return better or (score >= least and (scale != "unbounded" or score > 0))


def _unseen(samples: float) -> float:
    """Return the part of all samples that may have changed where none of so many did."""
    return float(1 - _ONE_SIDED ** (1 / samples))


def _with_unseen(seen: Loss, bad_end: float, drop: Drop, span: float, samples: float) -> Loss:
    """Return a loss with the bad end that so many samples may hide, which is further out than that of the interval.

    What no sample shows is drawn by none: from samples that all score alike drawing finds no noise, and from few that
    changed too little. So one more part of all samples may score nothing at all.

    Args:
        seen: the loss, with the interval of drawn samples.
        bad_end: what was lost, and that part of the whole scale.
        drop: what is allowed.
        span: the whole scale, in the terms of the drop.
        samples: how many were scored.

    Source: J. A. Hanley and A. Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249, 1983.
    """
    margin = (drop.amount - (seen.value or 0.0)) / span
    needed = math.ceil(math.log(_ONE_SIDED) / math.log1p(-margin)) if 0 < margin < 1 else 0
    advice = f"score {needed} samples or more" if needed else "" if drop.amount else "allow a drop above 0"
    part = number(100 * _unseen(samples), 2)
    reason = f"a loss in {part} % of all samples may show in none of {samples:.0f}"
    return replace(seen, high=bad_end, reason=reason, advice=advice)


def _in_terms(drop: Drop, quality: float, counts_by_inverse: bool) -> Callable[[float], float]:
    """Return what puts a loss in the score's own unit into the terms of a drop."""
    if not drop.relative:
        return float
    if counts_by_inverse:  # 1 - (1 / own) / (1 / original)
        return lambda lost: lost / (quality + lost) if quality + lost > 0 else -math.inf
    return lambda lost: lost / quality


def _without_interval(value: float, samples: float) -> Loss:
    if samples < _FEWEST:
        reason = f"{samples:.0f} samples are too few for an interval"
        return Loss(value, reason=reason, advice=f"score {_FEWEST} samples at least; a drop of 1 % takes hundreds")
    return Loss(
        value,
        reason="the difference has no interval: its noise is not known",
        advice="score the original and the variant in one command, by a metric that sums up samples",
    )
