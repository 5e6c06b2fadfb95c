"""The names of the numbers for people, in English and Russian, and their significant digits.

All texts here are plain: each renderer escapes them for its format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlflow_compress import words
from mlflow_compress.records import Comparison, Failure, Row, Summary
from mlflow_compress.reporting import hardware_names, metric_facts
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.words import DEVICES, LANGUAGES, ORIGINAL, UNITS

MISSING = "-"
DIFFERENCE = "_difference"  # suffix of a score's name: its difference from the original's
MEMORY_NOISE = 0.01  # the peaks of RAM and VRAM of one model repeat to 0.3 %
NOTHING_SAID: Known = {}  # the runs record no facts: use those of the installed metrics

PREPARE = "prepare"  # the group of what compressing takes
LOAD = "load"  # the group of what a service does under load
_GROUPS = ("size", "cpu", "gpu", LOAD, "quality", PREPARE)
_WEIGHTS, _DISK = "size/weights_mib", "size/disk_mib"
_MUCH_LESS = 0.9
_NO_DIFFERENCE = "±0"
_NOTHING = 1e-9  # two equal sums may differ by less, if they were added in another order
_NO_SCORES = (metric_facts.COUNT, *metric_facts.FIDELITY)
_SPEEDS = {"cpu/latency_p50_ms": "CPU", "gpu/latency_p50_ms": "GPU"}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: `team`, `model`, `method`, `hardware`, `pareto`, `quality` (all of `quality/*`), or the name of a metric.
        header: the header, by language.
        numeric: whether it is aligned to the right.
    """

    key: str
    header: Mapping[str, str]
    numeric: bool = True


_TEXTS = ("team", "model", "method", "quality", "hardware", "pareto")
_BY_KEY = {key: Column(key, header, numeric=key not in _TEXTS) for key, header in words.HEADERS.items()}
COLUMNS = tuple(column for key, column in _BY_KEY.items() if key not in ("hardware", "pareto"))
METRICS = tuple(column.key for column in COLUMNS if "/" in column.key)


def columns(keys: Sequence[str] = (), known: Known = NOTHING_SAID) -> tuple[Column, ...]:
    """Return the columns for these keys; without keys the columns of the course's table.

    Args:
        keys: the keys, as in `Comparison.columns`.
        known: the facts that the runs record about their metrics: a comparison's `metrics`.
    """
    return tuple(_BY_KEY.get(key) or _of_metric(key, known) for key in keys) or COLUMNS


def _of_metric(name: str, metrics: Known) -> Column:
    return Column(name, {language: label(name, language, metrics) for language in LANGUAGES})


def headers(columns: Sequence[Column], language: str) -> tuple[str, ...]:
    """Return the header of each column."""
    return tuple(column.header[language] for column in columns)


def cells(row: Row, columns: Sequence[Column], language: str, known: Known = NOTHING_SAID) -> tuple[str, ...]:
    """Return the text of each column of a row; `-` where nothing was measured.

    Args:
        row: a row of a comparison.
        columns: the columns, from `columns`.
        language: `en` or `ru`.
        known: the facts that the runs record about their metrics: the comparison's `metrics`.
    """
    return tuple(_cell(row, column.key, language, known) for column in columns)


def legend(comparison: Comparison) -> str:
    """Return the legend: the meaning of units, ratios and marks, and the source of the rows."""
    language = comparison.language
    sentences = [words.LEGEND[language]]
    if unclaimed := [name for name in _shown_metrics(comparison) if _claims_nothing(comparison.rows, name)]:
        metrics = "; ".join(label(name, language, comparison.metrics, with_unit=False) for name in unclaimed)
        sentences.append(words.LEGEND_UNKNOWN[language].format(metrics=metrics))
    if any(row.by_hand for row in comparison.rows):
        sentences.append(words.LEGEND_BY_HAND[language])
    with_several_scores = [row.values for row in comparison.rows if len(scores(row.values, comparison.metrics)) > 1]
    if deciding := dict.fromkeys(headline(values, comparison.metrics) for values in with_several_scores):
        metrics = ", ".join(label(name, language, comparison.metrics) for name in deciding if name)
        sentences.append(words.LEGEND_HEADLINE[language].format(metrics=metrics))
    if "pareto" in comparison.columns and comparison.objectives:
        objectives = ", ".join(_objective(name, comparison) for name in comparison.objectives)
        sentences.append(words.LEGEND_PARETO[language].format(objectives=objectives))
    if comparison.title:
        sentences.append(f"{words.SOURCE[language]}: {comparison.title}.")
    return " ".join(sentences)


def _shown_metrics(comparison: Comparison) -> list[str]:
    return [column.key for column in columns(comparison.columns, comparison.metrics) if "/" in column.key]


def _claims_nothing(rows: Iterable[Row], name: str) -> bool:
    """Return whether a metric has ratios, all with unknown noise; for a median a footnote of the row says so."""
    verdicts = [is_told_apart(row, name) for row in rows if name in row.ratios]
    return name not in _SPEEDS and bool(verdicts) and all(verdict is None for verdict in verdicts)


def _objective(name: str, comparison: Comparison) -> str:
    """Return the name of an objective; for `quality` with the scores that represent it."""
    if name != metric_facts.GROUP:
        return label(name, comparison.language, comparison.metrics, with_unit=False)
    names = dict.fromkeys(
        headline(row.values, comparison.metrics) for row in comparison.rows if row.dominated is not None
    )
    scored = ", ".join(label(score, comparison.language, comparison.metrics) for score in names if score)
    return f"{words.SCORING[comparison.language]} ({scored})" if scored else words.SCORING[comparison.language]


def summaries_title(language: str) -> str:
    """Return the title of the effects of each method over all models."""
    return words.SUMMARIES[language]


def summaries(comparison: Comparison) -> tuple[str, ...]:
    """Return a line for each method that was compared on several models; a mean over one model adds nothing."""
    return tuple(
        summary(method_summary, comparison.language, comparison.metrics)
        for method_summary in comparison.summaries
        if method_summary.models > 1
        and (method_summary.ratios.keys() & {*_SPEEDS, *words.SMALLER} or method_summary.differences)
    )


def summary(method_summary: Summary, language: str, known: Known = NOTHING_SAID) -> str:
    """Return a method's effect over several models in a line: `fp16: 1.40x faster (GPU), 0.50x size, over 9 models`."""
    parts = []
    for name, device in _SPEEDS.items():
        if method_summary.ratios.get(name, 0) > 0:
            unknown = words.NOISE_UNKNOWN[language] if name in method_summary.noise_unknown else ""
            behind = ", ".join(filter(None, [device, _behind(method_summary, name, language), unknown]))
            speed = _speed(method_summary.ratios[name], language)
            approximately = "" if speed == words.AS_FAST[language] else _about(method_summary, name)
            parts.append(f"{approximately}{speed} ({behind})")
    for name, smaller in words.SMALLER.items():
        is_in_weights = name == _DISK and method_summary.ratios.get(_DISK, 1) >= _MUCH_LESS * method_summary.ratios.get(
            _WEIGHTS, 1
        )
        if name in method_summary.ratios and not is_in_weights:
            models = _behind(method_summary, name, language)
            parts.append(
                smaller[language].format(ratio=ratio(method_summary.ratios[name])) + (f" ({models})" if models else "")
            )
    for name, moved in method_summary.differences.items():
        models = _behind(method_summary, name, language)
        unknown = words.NOISE_UNKNOWN[language] if name in method_summary.noise_unknown else ""
        text = f"{label(name, language, known)} {_about(method_summary, name)}{difference(moved)}"
        behind = ", ".join(filter(None, [models, unknown]))
        parts.append(text + (f" ({behind})" if behind else ""))
    line = (
        f"{method(method_summary.method, language)}: {', '.join(parts)}"
        if parts
        else method(method_summary.method, language)
    )
    if method_summary.models == 1:
        return f"{line} ({words.OF_ONE_MODEL[language]})"
    rows = (
        words.ROWS_BEHIND[language].format(rows=method_summary.rows)
        if method_summary.rows > method_summary.models
        else ""
    )
    return words.OVER_MODELS[language].format(summary=line, models=method_summary.models) + rows


def _about(method_summary: Summary, name: str) -> str:
    """Return the mark of a mean that is within noise."""
    changed = (
        difference(method_summary.differences[name]) != _NO_DIFFERENCE if name in method_summary.differences else True
    )
    return "≈" if changed and told_apart_over_models(method_summary, name) is False else ""


def _behind(method_summary: Summary, name: str, language: str) -> str:
    """Return how many models a mean is based on, where it is not all of them."""
    count = method_summary.counts.get(name, method_summary.models)
    text = words.OF_ONE_MODEL if count == 1 else words.OF_MODELS
    return "" if count == method_summary.models else text[language].format(models=count)


def _speed(times_ratio: float, language: str) -> str:
    """Return a ratio of times as people say it: `2.40x faster`."""
    times = f"{max(times_ratio, 1 / times_ratio):.2f}"
    text = words.AS_FAST if times == "1.00" else words.FASTER if times_ratio < 1 else words.SLOWER
    return text[language].format(times=times)


def failures_title(failures: Iterable[Failure], language: str) -> str:
    """Return the title of the list of failures."""
    return words.FAILURES[any(failure.status == words.IN_PROGRESS for failure in failures)][language]


def failure_lines(failures: Iterable[Failure], language: str) -> list[str]:
    """Return a line for each failure and its reason; methods of one model with the same reason share a line.

    `skipped (CPU): alpha, yolo11n, awq, gptq: it is not a language model`
    """
    methods: dict[tuple[str, str, str, str], list[str]] = {}
    for failure in failures:
        key = _outcome(failure, language), failure.team, failure.model, _reason(failure, language)
        methods.setdefault(key, []).append(method(failure.method, language))
    return [
        f"{befallen}: {', '.join(part for part in (team, model, *names) if part)}: {reason}"
        for (befallen, team, model, reason), names in methods.items()
    ]


def outcome_text(failure: Failure, language: str) -> str:
    """Return a failure without the variant's name: `failed (CPU): out of memory`."""
    return f"{_outcome(failure, language)}: {_reason(failure, language)}"


def _outcome(failure: Failure, language: str) -> str:
    status = words.STATUS.get(failure.status, words.STATUS["failed"])[language]
    stage = words.SCORING[language] if failure.device == "quality" else DEVICES.get(failure.device, failure.device)
    return f"{status} ({stage})" if stage else status


def _reason(failure: Failure, language: str) -> str:
    return failure.reason or words.NO_REASON[language]


def method(name: str, language: str) -> str:
    """Return a method's name as the table shows it: only `original` is translated."""
    if name == ORIGINAL or name.startswith(f"{ORIGINAL} ["):
        return words.ORIGINAL_METHOD[language] + name[len(ORIGINAL) :]
    return name


def scores(values: Mapping[str, float], known: Known = NOTHING_SAID) -> tuple[str, ...]:
    """Return the scores among metrics, the one that represents a model's quality first.

    That is the one of the lowest rank. A score with a known direction comes first, because without it the number has no
    meaning. Without any score, return the output error, if it is known.

    Args:
        values: numbers by metric name.
        known: the facts that the runs record about their metrics: a comparison's `metrics`.
    """
    ends = {f"{name}{end}" for name in values for end in (*metric_facts.DETAILS, DIFFERENCE)}
    names = {name for name, value in values.items() if name.startswith("quality/") and math.isfinite(value)}

    def place(name: str) -> tuple[object, ...]:
        facts = metric_facts.of(name, known)
        return (facts.greater_is_better is None, facts.rank, natural(name))

    return tuple(sorted(names.difference(_NO_SCORES, ends), key=place)) or tuple(names & {metric_facts.OUTPUT_ERROR})


def headline(values: Mapping[str, float], known: Known = NOTHING_SAID) -> str:
    """Return the metric that represents a row's quality; empty where it was not scored."""
    return next((name for name in scores(values, known) if name not in metric_facts.FIDELITY), "")


def is_original(row: Row) -> bool:
    """Return whether other rows are compared with this row, at any batch size and setting."""
    if row.is_original is not None:
        return row.is_original
    return row.method == ORIGINAL or row.method.startswith(f"{ORIGINAL} [")


def is_told_apart(row: Row, name: str) -> bool | None:
    """Return whether a ratio, or a score's difference, is more than noise; None where the noise is unknown.

    Args:
        row: a row of a comparison.
        name: the metric of the ratio, or the name of the difference.
    """
    if name in row.told_apart:
        return row.told_apart[name]
    if name in row.ratio_intervals:  # a row outside a table
        low, high = row.ratio_intervals[name]
        return not low <= 1 <= high
    low, high = row.values.get(f"{name}_low", math.nan), row.values.get(f"{name}_high", math.nan)
    if DIFFERENCE in name:
        return None if math.isnan(low) or math.isnan(high) else not low <= 0 <= high
    if name.partition("/")[0] not in DEVICES:
        return True  # sizes have no noise
    if not name.endswith("_mib"):
        return None
    return abs(math.log(row.ratios[name])) > math.log1p(MEMORY_NOISE) if row.ratios.get(name, 0) > 0 else None


def told_apart_over_models(method_summary: Summary, name: str) -> bool | None:
    """Return whether a mean over models is more than noise; None where the noise is unknown."""
    return None if name in method_summary.noise_unknown else name not in method_summary.within_noise


def number(value: float, digits: int = 4) -> str:
    """Return a number with significant digits as text, without an exponent where that is readable.

    >>> number(492.7215), number(0.05123456), number(24808.46), number(0)
    ('492.7', '0.05123', '24808', '0')
    """
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 999.96 has exponent 3
    if not -6 <= exponent < 12:
        return f"{value:.{digits}g}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def megabytes(value: float) -> str:
    """Return a size as the course writes it: two decimals, more only where they would all be 0."""
    return f"{value:.2f}" if abs(value) >= 1 else number(value, 3)


def difference(value: float) -> str:
    """Return a score minus the original's as text: `+0.031`, `-0.0020`; `±0` where only rounding differs."""
    return _NO_DIFFERENCE if abs(value) < _NOTHING else f"{'+' if value > 0 else ''}{number(value, 2)}"


def ratio(value: float) -> str:
    """Return a value divided by the original's as text: `0.50x`."""
    if abs(value) >= 100:
        return f"{number(value, 3)}x"
    return f"{value:.2f}x" if abs(value) >= 0.1 else f"{number(value, 2)}x"


def unit(name: str) -> str:
    """Return the unit of a metric by its name; empty where it has none."""
    return next((sign for suffix, sign in UNITS.items() if name.endswith(suffix)), "")


def label(name: str, language: str, known: Known = NOTHING_SAID, *, with_unit: bool = True) -> str:
    """Return a metric's name for people, with its unit unless `with_unit` is False.

    For a quality metric: the label in the run, else that of the installed metric, else its name.

    >>> label("cpu/latency_p50_ms", "en")
    'CPU inference time, median, ms'
    """
    group, _, quantity = name.partition("/")
    if group == metric_facts.GROUP:
        score = quantity.removesuffix(DIFFERENCE)
        labels = metric_facts.of(f"{group}/{score}", known).label
        text = labels.get(language) or labels.get("en") or _detail(score, language, known) or score
        return text if score == quantity else f"{text}, {words.FROM_ORIGINAL[language]}"
    suffix = next((suffix for suffix in UNITS if quantity.endswith(suffix)), "")
    quantity = quantity.removesuffix(suffix)
    statistic = ""
    if quantity not in words.QUANTITIES and (match := re.fullmatch(r"(.+)_(p\d+|mean|min|max|std)", quantity)):
        quantity, statistic = match.groups()
        statistic = words.STATISTICS.get(statistic, {}).get(language, statistic)
    text = words.QUANTITIES.get(quantity, {}).get(language, quantity.replace("_", " "))
    device = words.GROUPS[group][language] if group in words.GROUPS else DEVICES.get(group, "")
    return ", ".join(part for part in (f"{device} {text}".strip(), statistic, unit(name) if with_unit else "") if part)


def _detail(score: str, language: str, known: Known) -> str:
    """Return the name of a number that describes a score: `arc_easy_stderr`; empty for another one."""
    for suffix, text in (("_stderr", words.STATISTICS["stderr"]), ("_samples", words.SCORED_SAMPLES)):
        labels = metric_facts.of(f"{metric_facts.GROUP}/{score.removesuffix(suffix)}", known).label
        if score.endswith(suffix) and labels:
            return f"{labels.get(language) or labels.get('en')}, {text[language]}"
    return ""


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sort metric names for a file: always the table's own first, then group by group."""
    others = set(names).difference(METRICS)

    def place(name: str) -> tuple[object, ...]:
        group = name.partition("/")[0]
        return _GROUPS.index(group) if group in _GROUPS else len(_GROUPS), natural(name)

    return (*METRICS, *sorted(others, key=place))


def natural(text: str) -> tuple[object, ...]:
    """Return a sorting key: ignores case, orders digits by value (`v2` before `v10`), and never ties for two texts."""
    parts = re.split(r"([0-9]+)", text.casefold())
    # Compare numbers by length and then text: int() rejects thousands of digits.
    keys = [(len(part.lstrip("0")), part.lstrip("0")) if index % 2 else part for index, part in enumerate(parts)]
    return (keys, text)


def _cell(row: Row, key: str, language: str, metrics: Known) -> str:
    if key == "team":
        return row.team
    if key == "model":
        return row.model
    if key == "method":
        return method(row.method, language) + (f" ({words.BY_HAND[language]})" if row.by_hand else "")
    if key == "quality":
        return _quality(row, language, metrics)
    if key == "hardware":
        return hardware_names.short(row.hardware, language) or MISSING
    if key == "pareto":
        return MISSING if row.dominated is None else words.PARETO[row.dominated][language]
    return value_text(row, key, language)


def value_text(row: Row, key: str, language: str) -> str:
    """Return a number and its ratio to the original's as in a table: `379.0 (0.77x)`."""
    value = row.values.get(key)
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{megabytes(value)} MB" if is_size(key) else number(value)
    if key not in row.ratios:
        return text
    on_disk = f"; {ratio(row.ratios[_DISK])} {words.ON_DISK[language]}" if is_packed_on_disk(row, key) else ""
    return f"{text} ({'≈' if is_told_apart(row, key) is False else ''}{ratio(row.ratios[key])}{on_disk})"


def is_size(name: str) -> bool:
    """Return whether a metric is a size in MB, and not a count of parameters."""
    return name.startswith("size/") and name.endswith("_mib")


def is_packed_on_disk(row: Row, key: str) -> bool:
    """Return whether the saved model shrank more than its size in memory, as with clustered or sparse weights."""
    if key != _WEIGHTS or not {_DISK, _WEIGHTS} <= row.ratios.keys():
        return False
    return row.ratios[_DISK] < _MUCH_LESS * row.ratios[_WEIGHTS]


def score_parts(row: Row, name: str, language: str, known: Known = NOTHING_SAID) -> tuple[str, str]:
    """Return one score as `0.7880 accuracy`, and its difference from the original's, `(-0.012)`; empty if unknown."""
    return f"{number(row.values[name])} {label(name, language, known)}", _difference(row, name)


def score_text(row: Row, name: str, language: str, known: Known = NOTHING_SAID) -> str:
    """Return one score as in a table: `0.7880 accuracy (-0.012)`."""
    return " ".join(filter(None, score_parts(row, name, language, known)))


def _quality(row: Row, language: str, metrics: Known) -> str:
    """Return all scores, the deciding one first; without a score, the output error.

    The number of samples follows the scores of the data, and each score with its own samples.
    """
    values = row.values
    texts = {name: score_text(row, name, language, metrics) for name in scores(values, metrics)}
    own_counts = {name: values[key] for name in texts if (key := f"{name}_samples") in values}
    of_data = ", ".join(text for name, text in texts.items() if name not in own_counts)
    changed = ""
    if {metric_facts.WORSE, metric_facts.BETTER} <= values.keys() and (of_data or len(own_counts) == 1):
        counts = (f"{values[name]:.0f}" for name in (metric_facts.WORSE, metric_facts.BETTER))
        changed = "; " + words.CHANGED_SAMPLES[language].format(**dict(zip(("worse", "better"), counts, strict=True)))
    parts = [of_data] if of_data else []
    if of_data and metric_facts.COUNT in values:
        parts = [f"{of_data} (n={values[metric_facts.COUNT]:.0f}{changed})"]
        changed = ""
    parts += [f"{texts[name]} (n={count:.0f}{changed})" for name, count in own_counts.items()]
    return ", ".join(parts) or MISSING


def _difference(row: Row, name: str) -> str:
    """Return a score's difference from the original's as text: `(-0.012)`, or `(≈-0.002)` within noise.

    Within noise it has no more decimals than the score itself; `(≈0)` where nothing remains.
    """
    moved = row.values.get(f"{name}{DIFFERENCE}")
    if moved is None:
        return ""
    text = difference(moved)
    if text == _NO_DIFFERENCE or is_told_apart(row, f"{name}{DIFFERENCE}") is not False:
        return f"({text})"
    score = number(row.values[name])
    decimals = len(score.partition(".")[2])
    if score != "0" and "e" not in score + text and decimals < len(text.partition(".")[2]):
        text = f"{moved:+.{decimals}f}"
    return f"(≈{text if float(text) else '0'})"
