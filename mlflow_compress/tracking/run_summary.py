"""A result as text: for descriptions of MLflow runs, and for the terminal."""

from __future__ import annotations

import re

from mlflow_compress.compression.coverage import REACHED
from mlflow_compress.plain_text import plain
from mlflow_compress.records import PUBLISHED, Result
from mlflow_compress.reporting import metric_facts, published_scores
from mlflow_compress.reporting.table_text import DIFFERENCE, label, number, scores, unit

_SHOWN = (
    "size/weights_mib",
    "size/disk_mib",
    "size/disk_gzip_mib",
    "size/params",
    "size/params_nonzero",
    "size/macs",
    "prepare/seconds",
    "prepare/ram_peak_mib",
    "cpu/latency_p50_ms",
    "cpu/latency_p90_ms",
    "cpu/latency_p99_ms",
    "cpu/tokens_per_s",
    "cpu/real_time_factor",
    "cpu/real_time_factor_estimated",
    "cpu/real_time_factor_scored",
    "cpu/ram_peak_mib",
    "cpu/ram_model_mib",
    "gpu/latency_p50_ms",
    "gpu/latency_p90_ms",
    "gpu/latency_p99_ms",
    "gpu/tokens_per_s",
    "gpu/real_time_factor",
    "gpu/real_time_factor_estimated",
    "gpu/real_time_factor_scored",
    "gpu/vram_peak_mib",
    "load/requests_per_second",
    "load/p50_ms",
    "load/p95_ms",
    "load/p99_ms",
    "load/errors",
)
_TO_LAUNCHES = ("/latency_p50_ms", "/launches")
_TAIL = re.compile(r"/latency_p(?!50_)\d+_ms$")
_COUNTS = (
    *("size/params", "size/params_nonzero", "size/macs"),
    *("quality/samples", "quality/samples_worse", "quality/samples_better"),
)
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!~.-])")
_BY_NUMBER = str.maketrans(
    {char: f"&#{ord(char)};" for char in "<>|$@&:"}
)  # MLflow's UI would show a backslash before these


def facts(result: Result) -> list[tuple[str, str]]:
    """Return the main numbers as pairs of name and number with unit.

    Scores are in the order of the table: first the one that represents a model's quality. The interval of a percentile
    other than the median covers only the timed calls, not the noise between launches, so the text says so.
    """
    rows = []
    metrics = metric_facts.recorded(result.facts, "metric.")
    ends = {f"{name}_{end}" for name in result.measurements for end in ("low", "high")}
    quality = [name for name in result.measurements if name.startswith("quality/") and name not in ends]
    places = {name: index for index, name in enumerate(scores(result.measurements, metrics))}
    quality.sort(key=lambda name: places.get(name.removesuffix(DIFFERENCE), len(places)))
    for name in (*_SHOWN, *quality):
        if name not in result.measurements:
            continue
        value = result.measurements[name]
        is_count = name in _COUNTS or (name.startswith("quality/") and name.endswith("_samples"))
        text = f"{value:,.0f}" if is_count else f"{number(value)} {unit(name)}".strip()
        stem, suffix = (name.removesuffix("_ms"), "_ms") if name.endswith("_ms") else (name, "")
        low, high = (result.measurements.get(f"{stem}_{end}{suffix}") for end in ("low", "high"))
        if low is not None and high is not None and low < high:  # equal samples have no interval
            scope = ", of these calls" if _TAIL.search(name) else ""
            text += f" (95 %{scope}: {number(low)} to {number(high)})"
        if name.endswith(_TO_LAUNCHES[0]) and (count := result.measurements.get(name.replace(*_TO_LAUNCHES))):
            text += f", {count:.0f} launch{'es' if count > 1 else ''}"
        rows.append((label(name, "en", metrics, with_unit=False), text))
    rows += [
        (f"{label(name, 'en', metrics, with_unit=False)}, published", verdict.text)
        for name, verdict in published_scores.recorded(result.facts, PUBLISHED).items()
    ]
    return rows


def markdown(result: Result) -> str:
    """Return a result as Markdown for a run's description. All names are escaped: they come from other people."""
    variant = result.variant
    title = f"## {_escaped(variant.model)}, {_escaped(variant.label)}: {result.status}"
    lines = [title, ""]
    if result.reason:
        lines += [_escaped(result.reason), ""]
    if rows := facts(result):
        lines += [
            "| what | measured |",
            "| :-- | --: |",
            *(f"| {_escaped(name)} | {number} |" for name, number in rows),
            "",
        ]
    if REACHED in result.facts:
        lines += [f"The method {_escaped(result.facts[REACHED])}.", ""]
    if "timed" in result.facts:
        lines += [f"Timed: {_escaped(result.facts['timed'])}; batch {variant.batch_size}.", ""]
    environment = result.environment
    hardware = [environment.get("cpu_model", ""), environment.get("gpu_model", "")]
    if "threads" in environment:
        hardware.insert(1, f"{environment['threads']} threads")
    lines += ["On " + _escaped(", ".join(filter(None, hardware))) + ".", ""]
    if result.cautions:
        lines += ["**Before you trust these numbers:**", ""]
        lines += [f"* {_escaped(f'{caution.message}. {caution.advice}')}" for caution in result.cautions]
    return "\n".join(lines).rstrip() + "\n"


def page(result: Result) -> str:
    """Return the description for a run's own page: `markdown`, plus all facts and circumstances.

    MLflow's UI does not show the tags with these, see `run_tags`.
    """
    covered = (REACHED, "timed")
    facts = {
        name: text
        for name, text in result.facts.items()
        if name not in covered and not name.startswith(("metric.", PUBLISHED))
    }
    rows = {**facts, **result.environment}
    if not rows:
        return markdown(result)
    lines = ["| circumstance | |", "| :-- | :-- |"]
    lines += [f"| {_escaped(name)} | {_escaped(text)} |" for name, text in rows.items()]
    return "\n".join([markdown(result), *lines]) + "\n"


def text(result: Result) -> str:
    """Return a result as text for a terminal."""
    variant = result.variant
    reason = f" ({plain(result.reason)})" if result.reason else ""
    lines = [f"{plain(variant.model)}, {plain(variant.label)}: {result.status}{reason}"]
    rows = facts(result)
    if REACHED in result.facts:
        rows.append(("the method", plain(result.facts[REACHED])))
    width = max((len(name) for name, _ in rows), default=0)
    lines += [f"  {plain(name):<{width}}  {value}" for name, value in rows]
    lines += [f"  ! {plain(caution.message)}. {plain(caution.advice)}" for caution in result.cautions]
    return "\n".join(lines)


def _escaped(name: str) -> str:
    return "".join(_MARKUP.sub(r"\\\1", char).translate(_BY_NUMBER) for char in plain(name))
