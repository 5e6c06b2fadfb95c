"""Is the original right? Compare its scores with those that a recipe or its model card publishes.

If they differ, the two were computed by different protocols, or the model was loaded wrongly: then a difference between
the original and a compressed model can't be believed either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlflow_compress import registry
from mlflow_compress.data import spec
from mlflow_compress.errors import CompressError, RecipeError
from mlflow_compress.networks.model_card import CardScore
from mlflow_compress.records import MetricFacts, PublishedScore, PublishedVerdict
from mlflow_compress.scoring.bootstrap import Scores

CARD = "model card"
_TOLERANCE = 0.005  # part of the published score that other versions of libraries may explain
_PERCENT = 1.5  # a share above this was written in percent
_OF_DATA = ("source", "config", "split", "only", "revision")  # what decides which samples are read


def verdicts(
    scores: Scores, published: Mapping[str, PublishedScore], data: str, is_subset: bool
) -> dict[str, PublishedVerdict]:
    """Compare scores with published ones, by the name of the metric.

    A score is as published if the two differ by at most the stated tolerance; without one, by the rounding of the
    published number or 0.5 % of it. If only a part of the data was scored, it is also as published if its 95 % interval
    contains the published score.

    Args:
        scores: The original's scores.
        published: The published scores.
        data: The data that was scored.
        is_subset: Whether only a part of it was scored.
    """
    return {name: _verdict(name, score, scores, data, is_subset) for name, score in published.items()}


def _verdict(name: str, published: PublishedScore, scores: Scores, data: str, is_subset: bool) -> PublishedVerdict:
    own = scores.by_name.get(name)
    facts = own.facts if own is not None else MetricFacts()
    value = in_scale(published.value, facts)
    verdict = PublishedVerdict("not comparable", value, None, published.source)
    if own is None:
        return replace(verdict, reason="not_scored")
    if not _is_same_data(published.data, data):
        return replace(verdict, own=own.value, reason="other_data", data=published.data)
    tolerance = published.tolerance
    if tolerance is None:
        tolerance = max(_rounding(value), _TOLERANCE * abs(value))
    is_close = abs(own.value - value) <= tolerance * (1 + 1e-9)
    is_within = is_subset and own.low is not None and own.high is not None and own.low <= value <= own.high
    return replace(verdict, verdict="as published" if is_close or is_within else "differs", own=own.value)


def in_scale(value: float, facts: MetricFacts) -> float:
    """Return a published score in the scale of the metric: a share may be published in percent."""
    is_share = facts.scale in ("share", "error_rate")
    return value / 100 if is_share and value > _PERCENT else value


def of_card(card: Sequence[CardScore], metrics: Sequence[str], data: str) -> dict[str, PublishedScore]:
    """Return the scores of a model card for the metrics of a variant, preferably those on the same data.

    Args:
        card: The scores of the card.
        metrics: The metrics as in the recipe; one with options has no counterpart in a card.
        data: The data that was scored.
    """
    found: dict[str, PublishedScore] = {}
    for name in metrics:
        matching = [score for score in card if _is_metric(name, score.metric)]
        matching.sort(key=lambda score: not _is_of_card(score, data))
        if matching:
            place = data if _is_of_card(matching[0], data) else matching[0].place or "?"
            found[name] = PublishedScore(matching[0].value, place, CARD)
    return found


def _is_metric(name: str, written: str) -> bool:
    """Return whether an author's name of a metric means one of this package or of a plugin."""
    try:
        spelling = registry.find("metrics", name).spelling
    except CompressError:
        return False
    plain = written.replace("_", " ").strip()
    return written.casefold() == name.casefold() or bool(spelling and re.fullmatch(spelling, plain, re.IGNORECASE))


def _is_of_card(score: CardScore, data: str) -> bool:
    """Return whether a card's score is on the data; what the card does not state may be the same."""
    try:
        own = spec.parse(data)
    except RecipeError:
        return False
    if not score.data or _last(own.source) != _last(score.data):
        return False
    is_same_config = not (score.config and own.config) or score.config.casefold() == own.config.casefold()
    return is_same_config and (not score.split or score.split.casefold() == own.split.casefold())


def _last(name: str) -> str:
    return name.casefold().rpartition("/")[2]


def _is_same_data(published: str, scored: str) -> bool:
    if not published:
        return False
    try:
        one, other = spec.parse(published), spec.parse(scored)
    except RecipeError:
        return published == scored
    return all(getattr(one, name) == getattr(other, name) for name in _OF_DATA)


def _rounding(value: float) -> float:
    """Return half a unit of the last digit of a number as people write it."""
    if not math.isfinite(value):
        return 0.0
    digits = f"{value:.10f}".rstrip("0").partition(".")[2]
    return 0.5 * 10.0 ** -len(digits)
