"""Ranks the rows of a comparison: the Pareto front, sorting, the best per model, and each method over all models.

All are functions from a comparison to a comparison: nothing here reads a server.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from mlflow_compress import words
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.records import Comparison, Row, Summary
from mlflow_compress.reporting import claims, metric_facts, pairs, pareto
from mlflow_compress.reporting.footnotes import listed
from mlflow_compress.reporting.metric_facts import Known
from mlflow_compress.reporting.table_text import (
    DIFFERENCE,
    columns,
    headline,
    is_original,
    is_told_apart,
    label,
    natural,
)

QUALITY = pareto.QUALITY
# Short names of the numbers that people choose by; every metric's own name is valid too.
KEYS: Mapping[str, str] = {
    "size": "size/weights_mib",
    "disk": "size/disk_mib",
    "gzip": "size/disk_gzip_mib",
    "params": "size/params",
    "macs": "size/macs",
    "prepare": "prepare/seconds",
    "cpu": "cpu/latency_p50_ms",
    "gpu": "gpu/latency_p50_ms",
    "ram": "cpu/ram_peak_mib",
    "vram": "gpu/vram_peak_mib",
    "energy": "cpu/energy_per_item_j",
    "energy_estimated": "cpu/energy_per_item_estimated_j",
    "gpu_energy": "gpu/energy_per_item_j",
    "throughput": "cpu/throughput_per_s",
    "gpu_throughput": "gpu/throughput_per_s",
}
_TEXTS = ("team", "model", "method", "hardware")
_NORMAL_95 = 1.959964
_MORE_IS_BETTER = ("_per_s",)


def key(name: str, rows: Iterable[Row], *, texts: bool = False) -> str:
    """Return the metric for a short name: `size` is `size/weights_mib`.

    Args:
        name: one of `KEYS`, `quality`, or a metric that some row has.
        rows: the rows of the comparison.
        texts: whether `team`, `model`, `method`, `hardware` and `pareto` are valid too.

    Raises:
        UnknownName: it is none of these.
    """
    names = {QUALITY: QUALITY, **KEYS, **{metric: metric for row in rows for metric in row.values}}
    if texts:
        names |= {text: text for text in (*_TEXTS, "pareto")}
    if name not in names:
        raise UnknownName("column", name, names)
    return names[name]


def primary(row: Row, known: Known) -> str:
    """Return the metric that represents a row's quality; empty where it was not scored."""
    return headline(row.values, known)


def direction(name: str, known: Known) -> bool | None:
    """Return whether more of a number is better; None where it is unknown.

    Args:
        name: the name of the number.
        known: the facts that the runs record about their metrics: the comparison's `metrics`.
    """
    group, _, quantity = name.partition("/")
    if group != QUALITY:
        return quantity.endswith(_MORE_IS_BETTER)
    return metric_facts.of(name, known).greater_is_better


def lacking(name: str, fact: str) -> str:
    """Return a message that a fact of a metric is unknown, and what to do.

    Args:
        name: the name of the number, `quality/my_metric`.
        fact: `direction` or `scale`.
    """
    metric = name.removeprefix(f"{QUALITY}/")
    return (
        f"the {fact} of {metric!r} is unknown: the runs do not record it, or contradict each other, and no "
        "installed metric of that name defines it. Install the package of the metric, or score the runs again with a "
        "version that defines it (compress-bench rescore RUN --log)"
    )


def directed(comparison: Comparison) -> Comparison:
    """Return the comparison with the better direction of every number that has one."""
    names = {name for row in comparison.rows for name in row.values if not _is_detail(name)}
    directions = {name: direction(name, comparison.metrics) for name in sorted(names)}
    return replace(
        comparison, greater_is_better={name: better for name, better in directions.items() if better is not None}
    )


def marked(comparison: Comparison, objectives: Sequence[str]) -> Comparison:
    """Mark dominated rows: another row is as good in every objective, and better in one by more than noise.

    Only comparable rows are compared, see `pareto.peers`.

    Args:
        comparison: the comparison whose rows get `dominated` and `ranked_in`.
        objectives: two or more, as `key` accepts them.

    Raises:
        RecipeError: fewer than two objectives, or one without a better direction.
    """
    names = tuple(key(objective, comparison.rows) for objective in objectives)
    if len(set(names)) < 2:
        raise RecipeError("A Pareto front needs at least two objectives, such as --pareto size,quality.")
    for name in names:
        _require_direction(name, comparison, "it can't be an objective")
    costs = [[_cost(row, name, comparison.metrics) for name in names] for row in comparison.rows]
    keys = [
        None if any(map(math.isnan, numbers)) else _peers(row, names, comparison.metrics)
        for row, numbers in zip(comparison.rows, costs, strict=True)
    ]
    verdicts = pareto.verdicts(keys, costs, _noise(names, comparison))
    ranked_rows = [_with_verdict(row, verdict) for row, verdict in zip(comparison.rows, verdicts, strict=True)]
    column_keys = [column.key for column in columns(comparison.columns)]
    ranked = replace(
        comparison,
        rows=tuple(ranked_rows),
        objectives=names,
        columns=tuple(column_keys if "pareto" in column_keys else [*column_keys, "pareto"]),
    )
    return _explained(ranked, names)


def _peers(row: Row, objectives: Sequence[str], metrics: Known) -> tuple[Hashable, ...]:
    score = primary(row, metrics) if QUALITY in objectives else ""
    return pareto.peers(row, [name.partition("/")[0] for name in objectives], score=score)


def _noise(objectives: Sequence[str], comparison: Comparison) -> Callable[[int, int, int, int], bool]:
    """Return a function that says whether two rows differ in an objective by more than noise, over all pairs."""
    rows = comparison.rows
    noisy = max(1, sum(map(pairs.is_noisy, objectives)))

    def differ(one: int, other: int, objective: int, count: int) -> bool:
        name = objectives[objective]
        metric = primary(rows[one], comparison.metrics) if name == QUALITY else name
        return pairs.differ(rows[one], rows[other], metric, noisy * count)

    return differ


def ordered(comparison: Comparison, sorting: str, grouping: str = "") -> Comparison:
    """Sort the rows; rows without the number come last.

    Args:
        comparison: its rows; equal rows keep their order.
        sorting: a number as `key` accepts it, or a text column; a leading `-` sorts downwards. Empty keeps the order.
        grouping: `team`, `model`, `method` or `hardware`: rows with the same text are together, in natural order.
    """
    rows = list(comparison.rows)
    name = sorting.removeprefix("-")
    if name:
        name = key(name, rows, texts=True)
        backwards = sorting.startswith("-")
        if name in _TEXTS:
            rows.sort(key=lambda row: natural(getattr(row, name)), reverse=backwards)
        else:
            rows.sort(key=lambda row: _last_if_missing(_number(row, name, comparison.metrics), backwards))
    if grouping:
        rows.sort(key=lambda row: natural(getattr(row, grouping)))
    return replace(comparison, rows=tuple(rows))


def best(comparison: Comparison, choosing: str) -> Comparison:
    """Keep the originals of each team and model, and the variants that are best in a number.

    There is one best variant of each set of comparable rows, see `pareto.peers`. Rows copied by hand are kept only for
    a model that the team did not measure.

    Args:
        comparison: its failures and notes are kept.
        choosing: a number as `key` accepts it.

    Raises:
        RecipeError: the number has no better direction.
    """
    name = key(choosing, comparison.rows)
    _require_direction(name, comparison, "nothing is best in it")
    metrics = comparison.metrics
    measured = {(row.team, row.model) for row in comparison.rows if not row.by_hand}
    groups: dict[Hashable, list[tuple[float, int]]] = defaultdict(list)
    for index, row in enumerate(comparison.rows):
        cost = _cost(row, name, metrics)
        is_beside_measured = row.by_hand and (row.team, row.model) in measured
        if not (is_original(row) or is_beside_measured or math.isnan(cost)):
            groups[row.team, row.model, _peers(row, [name], metrics)].append((cost, index))
    ranked = ([place for _, place in sorted(group)] for group in groups.values())
    rivals = {first: [comparison.rows[place] for place in worse_rows] for first, *worse_rows in ranked}
    footnotes = list(comparison.footnotes)
    kept_rows: list[Row] = []
    for index, row in enumerate(comparison.rows):
        if is_original(row):
            kept_rows.append(row)
        elif index in rivals:
            equal = _equals(row, rivals[index], primary(row, metrics) if name == QUALITY else name)
            kept_rows.append(_with_equals(row, equal, footnotes, comparison.language))
    return replace(comparison, rows=tuple(kept_rows), footnotes=tuple(footnotes))


def _equals(row: Row, rivals: Sequence[Row], metric: str) -> list[str]:
    """Return the methods that do not differ from a row by more than noise."""
    return [rival.method for rival in rivals if not pairs.differ(row, rival, metric, len(rivals))]


def _with_equals(row: Row, methods: Sequence[str], footnotes: list[str], language: str) -> Row:
    """Return a row with a footnote on the methods that noise can't separate from it; add it to the list if new."""
    if not methods:
        return row
    sentence = words.AS_GOOD[language].format(methods=listed(methods, language))
    if sentence not in footnotes:
        footnotes.append(sentence)
    return replace(row, notes=(*row.notes, footnotes.index(sentence)))


def summed_up(comparison: Comparison) -> Comparison:
    """Add the effect of each method over all models: geometric means of ratios, means of differences in quality.

    A model that several teams or recipes measured counts once, by its own geometric mean. Rows copied by hand, rows
    that failed since, and rows compared with a `--baseline` are left out. All means are judged together for being more
    than noise, see `claims.holm`.

    Source: P. J. Fleming, J. J. Wallace, How not to lie with statistics: the correct way to summarize benchmark
    results, CACM 29(3), 1986.
    """
    methods: dict[str, list[Row]] = defaultdict(list)
    failed = {
        (failure.team, failure.model, failure.method) for failure in comparison.failures if failure.status == "failed"
    }
    for row in comparison.rows:
        has_failed = (row.team, row.model, row.method) in failed
        if row.ratios and not (row.by_hand or row.baseline or is_original(row) or has_failed):
            methods[row.method].append(row)
    judged = [_summary(method, methods[method], comparison.metrics) for method in sorted(methods, key=natural)]
    claimed = [
        (index, name, p_value) for index, (_, p_values) in enumerate(judged) for name, p_value in p_values.items()
    ]
    within_noise: list[list[str]] = [[] for _ in judged]
    for (position, name, _), p_value in zip(claimed, claims.holm([p_value for *_, p_value in claimed]), strict=True):
        if p_value >= claims.LEVEL:
            within_noise[position].append(name)
    summaries = (
        replace(summary, within_noise=tuple(names)) for (summary, _), names in zip(judged, within_noise, strict=True)
    )
    return replace(comparison, summaries=tuple(summaries))


def _summary(method: str, rows: Sequence[Row], metrics: Known) -> tuple[Summary, dict[str, float]]:
    """Return the effect of a method, and the p-value of each mean whose noise is known."""
    logs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    moved: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))  # NaN: unknown
    for row in rows:
        model = row.source or row.model
        for name, ratio in row.ratios.items():
            if ratio > 0:
                logs[name][model].append(math.log(ratio))
                if is_told_apart(row, name) is None or name in row.ratio_intervals:
                    errors[name][model].append(_error_of_ratio(row, name))
        score = primary(row, metrics)
        if score and score + DIFFERENCE in row.values:
            moved[score][model].append(row.values[score + DIFFERENCE])
            errors[score][model].append(_error_of_difference(row, score + DIFFERENCE))
    ratio_names = [name for name in KEYS.values() if name in logs]
    means = {name: _mean(map(_mean, logs[name].values())) for name in ratio_names}
    means |= {name: _mean(map(_mean, moved[name].values())) for name in sorted(moved)}
    joint = {name: _joint_error(errors[name].values()) for name in means if name in errors}
    summary = Summary(
        method,
        models=len({row.source or row.model for row in rows}),
        ratios={name: math.exp(means[name]) for name in ratio_names},
        differences={name: means[name] for name in sorted(moved)},
        counts={
            **{name: len(logs[name]) for name in ratio_names},
            **{name: len(moved[name]) for name in sorted(moved)},
        },
        rows=len(rows),
        noise_unknown=tuple(name for name, error in joint.items() if math.isnan(error)),
    )
    p_values = {name: claims.of_mean(means[name], error) for name, error in joint.items() if not math.isnan(error)}
    return summary, p_values


def _error_of_ratio(row: Row, name: str) -> float:
    """Return the standard error of a ratio's logarithm, assuming a normal distribution; NaN where it is unknown."""
    if name not in row.ratio_intervals:
        return math.nan
    error = claims.error_of_ratio(row.ratios[name], row.ratio_intervals[name], row.ratio_degrees.get(name, math.inf))
    return error.half_width() / _NORMAL_95


def _error_of_difference(row: Row, name: str) -> float:
    ends = claims.difference_ends(row.values, name)
    return math.nan if ends is None else (ends[1] - ends[0]) / 2 / _NORMAL_95


def _joint_error(by_model: Collection[Sequence[float]]) -> float:
    """Return the standard error of a mean over models of each model's mean, from all errors; NaN where one is NaN."""
    variances = [math.fsum(error**2 for error in errors) / len(errors) ** 2 for errors in by_model]
    return math.sqrt(math.fsum(variances)) / len(variances)


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return math.fsum(values) / len(values)


def _with_verdict(row: Row, verdict: tuple[bool, int] | None) -> Row:
    return replace(row, dominated=verdict and verdict[0], ranked_in=verdict and verdict[1])


def _explained(comparison: Comparison, names: Sequence[str]) -> Comparison:
    """Add a footnote to the rows that are not ranked because the direction of their score is unknown."""
    if QUALITY not in names:
        return comparison
    footnotes = list(comparison.footnotes)
    rows = []
    for row in comparison.rows:
        name = primary(row, comparison.metrics)
        if name and direction(name, comparison.metrics) is None:
            metric = label(name, comparison.language, comparison.metrics)
            sentence = words.NOT_RANKED[comparison.language].format(metric=metric)
            if sentence not in footnotes:
                footnotes.append(sentence)
            rows.append(replace(row, notes=(*row.notes, footnotes.index(sentence))))
        else:
            rows.append(row)
    return replace(comparison, rows=tuple(rows), footnotes=tuple(footnotes))


def _require_direction(name: str, comparison: Comparison, consequence: str) -> None:
    """Raise for a number without a known better direction; for `quality` where no score of any row has one.

    Raises:
        RecipeError: with the missing fact.
    """
    names = {name}
    if name == QUALITY:
        names = {score for row in comparison.rows if (score := primary(row, comparison.metrics))}
    unknown = sorted(metric for metric in names if direction(metric, comparison.metrics) is None)
    if unknown and len(unknown) == len(names):
        raise RecipeError(f"{name}: {consequence}, because {lacking(unknown[0], 'direction')}.")


def _number(row: Row, name: str, metrics: Known) -> float:
    """Return a row's number; NaN where it has none."""
    return row.values.get(primary(row, metrics) if name == QUALITY else name, math.nan)


def _cost(row: Row, name: str, metrics: Known) -> float:
    """Return a number where less is better; NaN where the row has none, or its direction is unknown."""
    metric = primary(row, metrics) if name == QUALITY else name
    better = direction(metric, metrics) if metric else None
    if better is None:
        return math.nan
    return -_number(row, name, metrics) if better else _number(row, name, metrics)


def _last_if_missing(number: float, backwards: bool) -> tuple[bool, float]:
    return (True, 0.0) if math.isnan(number) else (False, -number if backwards else number)


def _is_detail(name: str) -> bool:
    """Return whether a number only describes another one: an end of its interval, or a count."""
    return name.endswith(("_low", "_high", "_samples")) or DIFFERENCE in name
