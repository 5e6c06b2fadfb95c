"""Decides whether every variant passes, fails, or can't be decided, for each demand: the check of a pull request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from mlflow_compress.records import Comparison, Failure, Row
from mlflow_compress.reporting import published_scores
from mlflow_compress.reporting.against_original import is_believed, why_unsure
from mlflow_compress.reporting.metric_facts import GROUP as QUALITY
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.quality_drop import LOOK, Drop, loss_of
from mlflow_compress.reporting.ranking import primary
from mlflow_compress.reporting.table_text import (
    MEMORY_NOISE,
    is_original,
    label,
    number,
    outcome_text,
    score_text,
    value_text,
)
from mlflow_compress.reporting.table_text import ratio as ratio_text
from mlflow_compress.words import IN_PROGRESS, footnote

Verdict = Literal["passes", "fails", "undecided", "not checked"]
Kind = Literal["speed", "quality", "size", "memory"]
EXIT_CODES: Mapping[Verdict, int] = {"passes": 0, "fails": 6, "undecided": 7, "not checked": 7}
_WORST_STATUS_FIRST = ("failed", IN_PROGRESS, "skipped")
_WORST_FIRST: tuple[Verdict, ...] = ("fails", "undecided", "passes", "not checked")

_EXACT = 1e-9  # tolerance for sizes: rounding error of a float division
_NOT_BELIEVED = "the ratio is not believed: no compression reaches it, or it contradicts the two times"

_IMPOSSIBLE = "the logged value can't be a measurement and was left out"
_LEAST_OF_FP32 = 3.9  # bytes per parameter
_HOLDS = "the limit lies inside the interval"
_EVEN_AT_BEST = "even the good end of the interval misses the limit"
_MORE_TIME = "measure it in turns with its original (--interleave), or in several launches for both (--launches)"
_MORE_PAIRS = "allow time for several pairs of launches (--seconds: starting them may take ten times as long)"
_MORE_LAUNCHES = "measure longer, in more launches (--launches), or in turns with its original (--interleave)"
_MEASURE_ORIGINAL = "measure the original by the same team on the same machine (compress-bench run MODEL)"
_MEASURE_BASELINE = "measure it at this batch size, or choose another --baseline"
_SCORE = "score trained weights on data"
_PUBLISH = "compare the protocols (data, split, metric), or correct `published` in the recipe"
_RANDOM = "random weights: the quality is unknown"
_MORE_SAMPLES = "score more samples, or score the original and the variant in one command, which pairs their answers"
_APART = (
    "not compared with the original, which was measured under different conditions",
    "measure both on one machine in the same way; the footnotes of compress-report show what differs",
)


@dataclass(frozen=True)
class Preset:
    """A rule for quality that others defined.

    Attributes:
        drop: the loss that it allows.
        meaning: what it requires, and how this check differs from it.
    """

    drop: Drop
    meaning: str


def _mlperf(percent: str, drop: float) -> Preset:
    meaning = (
        f"at least {percent} of the original's quality. MLPerf's closed division requires this of the accuracy of the "
        "FP32 reference on its own whole data set; here the reference is each row's original, on the samples scored"
    )
    return Preset(Drop(drop, relative=True, against_fp32=True), meaning)


PRESETS = {"mlperf": _mlperf("99 %", 0.01), "mlperf-high": _mlperf("99.9 %", 0.001)}


@dataclass(frozen=True)
class Demand:
    """One limit that every variant must meet.

    Attributes:
        option: the command-line option that sets it.
        kind: how it is judged.
        group: the group of the number: `cpu`, `gpu`, `size` or `quality`.
        metric: the metric; empty for `quality`, where each row has its own.
        limit: the least speed-up, the greatest ratio, or the greatest loss.
        drop: for quality only: the unit of the limit.
        is_strict: for quality only: whether the original's score must be as published.
    """

    option: str
    kind: Kind
    group: str
    metric: str
    limit: float
    drop: Drop | None = None
    is_strict: bool = False

    def say(self, metric: str, known: Known) -> str:
        """Return the demand on a metric as text."""
        if self.drop is not None:
            return f"{label(metric, 'en', known) if metric else QUALITY}: at most {self.drop} lost"
        name = label(self.metric, "en", with_unit=False)
        if self.kind == "speed":
            return f"{name}: at least {self.limit:g}x as fast"
        tolerance = f" and {100 * MEMORY_NOISE:g} %" if self.kind == "memory" else ""
        return f"{name}: at most {self.limit:g}x{tolerance}"


@dataclass(frozen=True)
class Demands:
    """The limits that every variant must meet; None sets no limit.

    Attributes:
        min_speedup: the original's median latency divided by the variant's.
        max_quality_drop: the greatest loss of the score that represents the model's quality.
        max_size_ratio: bytes of the weights as they are held in memory, divided by the original's.
        max_disk_ratio: bytes of the saved model, divided by the original's.
        max_memory_ratio: peak memory divided by the original's.
        device: the device of latency and memory: `cpu` or `gpu`.
        is_strict: whether quality is judged only where the original's score is as published.
    """

    min_speedup: float | None = None
    max_quality_drop: Drop | None = None
    max_size_ratio: float | None = None
    max_disk_ratio: float | None = None
    max_memory_ratio: float | None = None
    device: str = "cpu"
    is_strict: bool = False

    def asked(self) -> tuple[Demand, ...]:
        """Return the demands, one for each limit."""
        drop, memory = self.max_quality_drop, {"cpu": "cpu/ram_peak_mib", "gpu": "gpu/vram_peak_mib"}[self.device]
        limits: tuple[tuple[str, Kind, str, str, float | None, Drop | None], ...] = (
            ("--min-speedup", "speed", self.device, f"{self.device}/latency_p50_ms", self.min_speedup, None),
            ("--max-quality-drop", "quality", QUALITY, "", drop.amount if drop else None, drop),
            ("--max-size-ratio", "size", "size", "size/weights_mib", self.max_size_ratio, None),
            ("--max-disk-ratio", "size", "size", "size/disk_mib", self.max_disk_ratio, None),
            ("--max-memory-ratio", "memory", self.device, memory, self.max_memory_ratio, None),
        )
        return tuple(
            Demand(option, kind, group, metric, limit, in_terms, self.is_strict and in_terms is not None)
            for option, kind, group, metric, limit, in_terms in limits
            if limit is not None
        )


@dataclass(frozen=True)
class Check:
    """One demand on one variant, and its verdict.

    Attributes:
        team, model, method: the variant.
        option: the option that sets the demand: `--min-speedup`; empty: the demand that the variant can be measured.
        asked: the demand as text, with the metric that decides.
        metric: that metric; empty where the row has none.
        verdict: `passes` where even the bad end of the 95 % interval meets the limit, `fails` where even the good end
            misses it, otherwise `undecided`; `not checked` where there is no measurement to check.
        measured: the number as the table shows it.
        result: the value as text.
        interval: the ends of the interval as text.
        value: in the demand's own unit: times as fast, times the original's, or the loss; None: unknown.
        low, high: the ends of its 95 % interval; None: the noise is unknown, or there is no interval.
        limit: the limit, in the same unit.
        reason: why the verdict is what it is; where a number decided, what that number does not show.
        advice: what to do next.
    """

    team: str
    model: str
    method: str
    option: str = ""
    asked: str = ""
    metric: str = ""
    verdict: Verdict = "undecided"
    measured: str = ""
    result: str = ""
    interval: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    reason: str = ""
    advice: str = ""


@dataclass
class _Variant:
    """The rows of one variant, and the failures of its newest attempts.

    For an original only the failures count: there are no demands on it.
    """

    measured: list[Row] = field(default_factory=list)
    copied: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    is_original: bool = False


def check(comparison: Comparison, demands: Demands) -> tuple[Check, ...]:
    """Check every variant of a comparison, in its order, against the originals.

    A variant with any part whose newest attempt failed fails. Skipped variants and copied rows are not checked. A
    copied row is listed beside the measured rows of the same name, and does not replace them.

    Raises:
        RecipeError: the allowed drop of quality covers the whole score.
    """
    facts = comparison.metrics
    variants: dict[tuple[str, str, str], _Variant] = defaultdict(_Variant)
    for row in comparison.rows:
        if not is_original(row):
            variant = variants[row.team, row.model, row.method]
            (variant.copied if row.by_hand else variant.measured).append(row)
            if demands.max_quality_drop is not None:
                demands.max_quality_drop.refuse_all(primary(row, facts), facts)
    originals = {(row.team, row.model, row.method) for row in comparison.rows if is_original(row)}
    for failure in comparison.failures:
        key = failure.team, failure.model, failure.method
        variants[key].failures.append(failure)
        variants[key].is_original = key in originals and not variants[key].measured
    all_demands = demands.asked()
    return tuple(
        replace(result, team=team, model=model, method=method)
        for (team, model, method), variant in variants.items()
        for result in _checks(variant, all_demands, facts)
    )


def verdict(checks: Iterable[Check]) -> Verdict:
    """Return the worst verdict of all checks; `undecided` too where a demand was checked on no variant."""
    by_demand: dict[str, set[Verdict]] = defaultdict(set)
    for result in checks:
        by_demand[result.option].add(result.verdict)
    worst = [next(outcome for outcome in _WORST_FIRST if outcome in verdicts) for verdicts in by_demand.values()]
    unchecked = [by_demand[option] <= {"not checked"} for option in by_demand if option]
    if "fails" in worst:
        return "fails"
    return "undecided" if "undecided" in worst or any(unchecked) or not unchecked else "passes"


def of_variants(checks: Iterable[Check]) -> dict[tuple[str, str, str], Verdict]:
    """Return the worst verdict of each variant, by team, model and method."""
    by_variant: dict[tuple[str, str, str], set[Verdict]] = defaultdict(set)
    for result in checks:
        by_variant[result.team, result.model, result.method].add(result.verdict)
    return {
        variant: next(outcome for outcome in _WORST_FIRST if outcome in verdicts)
        for variant, verdicts in by_variant.items()
    }


def _checks(variant: _Variant, demands: Sequence[Demand], metrics: Known) -> Iterator[Check]:
    reported: list[Failure] = []
    attempts: Sequence[Row | None] = variant.measured or ([None] if variant.failures else [])
    for row in () if variant.is_original else attempts:
        for demand in demands:
            result = _judged(row, demand, metrics) if row is not None else _blank("", demand, metrics)
            groups = ("", demand.group)
            if failures := [failure for failure in variant.failures if row is None or failure.device in groups]:
                reported += failures
                worst = min(failures, key=lambda failure: _WORST_STATUS_FIRST.index(failure.status))
                result = replace(result, **_after(worst, row))
            yield result
    for failure in variant.failures:
        if failure not in reported:
            yield replace(Check("", "", "", asked="to be measured"), **_after(failure, next(iter(attempts), None)))
    for row in variant.copied:
        for demand in demands:
            result = _judged(row, demand, metrics)
            yield replace(result, verdict="not checked", reason="copied by hand from a table, not measured", advice="")


def _blank(metric: str, demand: Demand, metrics: Known) -> Check:
    """Return a check with the demand alone."""
    text = demand.say(metric, metrics)
    return Check("", "", "", demand.option, text, metric or demand.metric, limit=demand.limit)


class _Changes(TypedDict):
    verdict: Verdict
    reason: str
    advice: str


def _after(failure: Failure, row: Row | None) -> _Changes:
    """Return the verdict, reason and advice for a failed, skipped or unfinished attempt."""
    reason = outcome_text(failure, "en")
    if row is not None and (not failure.device or failure.device in row.runs):
        reason += "; the numbers are from an older run, or were measured before it failed"
    if failure.status == "skipped":
        return {"verdict": "not checked", "reason": reason, "advice": ""}
    if failure.status == IN_PROGRESS:
        return {"verdict": "undecided", "reason": reason, "advice": "check again when the run has ended"}
    return {"verdict": "fails", "reason": reason, "advice": "fix it and measure again, or delete the failed run"}


def _judged(row: Row, demand: Demand, metrics: Known) -> Check:
    """Check one demand on a row with numbers, and add what the verdict must not hide."""
    result = _ratio(row, demand, metrics) if demand.drop is None else _quality(row, demand, demand.drop, metrics)
    if demand.is_strict and result.verdict in ("passes", "fails") and (doubt := _unpublished(row)):
        return replace(result, verdict="undecided", reason=doubt, advice=_PUBLISH)
    reasons = [result.reason]
    if demand.drop is not None and demand.drop.against_fp32:
        reasons += _not_fp32(row)
    if result.verdict in ("passes", "fails"):
        reasons += [*([_RANDOM] if row.random_weights else []), *row.cautions]
    if row.original is not None and row.baseline:
        reasons.append(f"the baseline is {'run ' if row.original.run_id else 'the original of '}{row.baseline}")
    return replace(result, reason="; ".join(filter(None, reasons)))


def _quality(row: Row, demand: Demand, drop: Drop, metrics: Known) -> Check:
    name = primary(row, metrics)
    blank = _blank(name, demand, metrics)
    if not name and any(metric.startswith(f"{QUALITY}/") for metric in row.not_believed):
        return replace(blank, reason=_IMPOSSIBLE, advice=LOOK)
    if not name or row.random_weights:
        why = "random weights: there is no quality to lose" if row.random_weights else "the quality was not scored"
        return replace(blank, reason=why, advice=_SCORE)
    blank = replace(blank, measured=score_text(row, name, "en", metrics))
    doubt = _doubt(row, about_quality=True)
    loss = loss_of(row, name, drop, metrics)
    if row.original is None or loss.value is None:
        return replace(blank, reason=doubt[0] or loss.reason, advice=doubt[1] or loss.advice)
    result = replace(blank, value=loss.value, low=loss.low, high=loss.high, result=drop.say(loss.value))
    if loss.low is not None and loss.high is not None:
        result = replace(result, interval=drop.say_between(loss.low, loss.high))
    if doubt[0] or loss.low is None or loss.high is None:
        return replace(result, reason=doubt[0] or loss.reason, advice=doubt[1] or loss.advice)
    limit = demand.limit * (1 + _EXACT)
    decided = _decided(meets=loss.high <= limit, misses=loss.low > limit)
    if decided == "undecided":
        return replace(result, verdict=decided, reason=loss.reason or _HOLDS, advice=loss.advice or _MORE_SAMPLES)
    return replace(result, verdict=decided, reason=_EVEN_AT_BEST if decided == "fails" else "")


def _not_fp32(row: Row) -> list[str]:
    """Return a remark where the original's weights are not FP32: they take less than 4 bytes per parameter."""
    names = "size/weights_mib", "size/params"
    if not all(row.values.get(name) and row.ratios.get(name) for name in names):
        return []
    mib, parameters = (row.values[name] / row.ratios[name] for name in names)
    bytes_each = mib * 2**20 / parameters
    if bytes_each > _LEAST_OF_FP32:
        return []
    return [f"the original takes {number(bytes_each, 2)} bytes per parameter: it is not an FP32 reference"]


def _ratio(row: Row, demand: Demand, metrics: Known) -> Check:
    """Check a number against the original's number."""
    name = demand.metric
    blank = _blank("", demand, metrics)
    if name not in row.values and name in row.not_believed:
        return replace(blank, reason=_IMPOSSIBLE, advice=LOOK)
    if name not in row.values:
        return replace(blank, reason="it was not measured", advice=f"measure it ({demand.group})")
    blank = replace(blank, measured=value_text(row, name, "en"))
    ratio = row.ratios.get(name)
    doubt = ("", "") if _is_in_turns(row, demand) else _doubt(row)
    if ratio is None and name in row.not_believed:
        return replace(blank, reason=_NOT_BELIEVED, advice=LOOK)
    if ratio is None:
        return replace(blank, reason=doubt[0] or _APART[0], advice=doubt[1] or _APART[1])
    if not is_believed(ratio):
        return replace(blank, reason=f"a value of {ratio:.3g} times the original's is not believed", advice=LOOK)
    if demand.kind == "speed":
        return _speed(replace(blank, value=1 / ratio), row, demand, doubt)
    result = replace(blank, value=ratio, result=_times(ratio, demand.limit))
    if doubt[0]:
        return replace(result, reason=doubt[0], advice=doubt[1])
    tolerance = MEMORY_NOISE if demand.kind == "memory" else _EXACT
    if ratio <= demand.limit * (1 + tolerance):
        return replace(result, verdict="passes")
    return replace(result, verdict="fails", reason="above the limit")


def _speed(blank: Check, row: Row, demand: Demand, doubt: tuple[str, str]) -> Check:
    """Check how many times as fast a row is, by the interval of its ratio."""
    value = blank.value or 0.0
    result = replace(blank, result=f"{_times(value, demand.limit)} as fast")
    if demand.metric not in row.ratio_intervals:
        advice = _MORE_PAIRS if _is_in_turns(row, demand) else _MORE_TIME
        reason = footnote(why_unsure(row.values, row.original, demand.group), "en")
        return replace(result, reason=doubt[0] or reason, advice=doubt[1] or advice)
    ends = row.ratio_intervals[demand.metric]
    if not 0 < ends[0] <= row.ratios[demand.metric] <= ends[1]:
        return replace(result, reason="the ratio lies outside its own interval", advice=LOOK)
    low, high = 1 / ends[1], 1 / ends[0]
    interval = f"{_times(low, demand.limit)} to {_times(high, demand.limit)}"
    result = replace(result, low=low, high=high, interval=interval)
    if doubt[0]:
        return replace(result, reason=doubt[0], advice=doubt[1])
    least = demand.limit * (1 - _EXACT)
    decided = _decided(meets=low >= least, misses=high < least)
    if decided == "undecided":
        return replace(result, verdict=decided, reason=_HOLDS, advice=_MORE_LAUNCHES)
    return replace(result, verdict=decided, reason=_EVEN_AT_BEST if decided == "fails" else "")


def _is_in_turns(row: Row, demand: Demand) -> bool:
    """Return whether a row has its own ratio: to the original that it was measured in turns with."""
    return demand.kind == "speed" and f"{demand.group}/latency_ratio" in row.values


def _decided(*, meets: bool, misses: bool) -> Verdict:
    return "passes" if meets else "fails" if misses else "undecided"


def _doubt(row: Row, *, about_quality: bool = False) -> tuple[str, str]:
    """Return why a row's original can't decide, and what to do next; empty where it can."""
    original = row.original
    if original is None and row.baseline:
        return f"its baseline {row.baseline} was not measured at its batch size", _MEASURE_BASELINE
    if original is None:
        return "no original of this model was measured", _MEASURE_ORIGINAL
    if original.by_hand:
        return "the original's numbers were copied by hand", _MEASURE_ORIGINAL
    if original.team != row.team and not original.run_id:  # a run named as the baseline may be another team's
        return f"compared with the original of team {original.team}", _MEASURE_ORIGINAL
    if about_quality and original.random_weights:
        return "the original has random weights: there is no quality to lose", _SCORE
    return "", ""


def _unpublished(row: Row) -> str:
    """Return why the original's score is not known to be right; empty if it is as published."""
    published = "" if row.original is None else row.original.published
    if published == published_scores.SAME:
        return ""
    if published == published_scores.DIFFERS:
        return "the original's score differs from the published one"
    if published == published_scores.APART:
        return "the original's score can't be compared with the published one"
    return "no published score of the original is known"


def _times(value: float, limit: float) -> str:
    """Return a ratio as the table shows it, with more digits where needed to distinguish it from the limit."""
    if value == limit or ratio_text(value) != ratio_text(limit):
        return ratio_text(value)
    texts = ((number(value, digits), number(limit, digits)) for digits in range(4, 16))
    return next((f"{text}x" for text, other_text in texts if text != other_text), f"{value!r}x")
