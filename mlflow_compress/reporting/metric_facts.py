"""Facts about a quality metric: from the runs, else from the metric that is installed here.

Runs of version 0.1 record no facts, so these are looked up by name among the installed metrics.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache

from mlflow_compress import registry, words
from mlflow_compress.errors import CompressError
from mlflow_compress.records import MetricFacts, Run
from mlflow_compress.sockets import Metric

GROUP = "quality"
COUNT = "quality/samples"
OUTPUT_ERROR = "quality/output_error_rel_l2"
FLIPS, WORSE, BETTER = "quality/flips", "quality/samples_worse", "quality/samples_better"
# Numbers that a variant has in addition to its scores: how far its outputs or answers are from the original's. They are
# not metrics, and do not represent quality.
FIDELITY: Mapping[str, MetricFacts] = {
    "quality/top1_agreement": MetricFacts(words.FIDELITY["quality/top1_agreement"], "share", greater_is_better=True),
    OUTPUT_ERROR: MetricFacts(words.FIDELITY[OUTPUT_ERROR], "unbounded", greater_is_better=False),
    "quality/kl_divergence_nats": MetricFacts(
        words.FIDELITY["quality/kl_divergence_nats"], "unbounded", greater_is_better=False
    ),
    "quality/kl_divergence_reverse_nats": MetricFacts(
        words.FIDELITY["quality/kl_divergence_reverse_nats"], "unbounded", greater_is_better=False
    ),
    "quality/kl_divergence_lower_bound_nats": MetricFacts(
        words.FIDELITY["quality/kl_divergence_lower_bound_nats"], "unbounded", greater_is_better=False
    ),
    "quality/kl_divergence_reverse_lower_bound_nats": MetricFacts(
        words.FIDELITY["quality/kl_divergence_reverse_lower_bound_nats"], "unbounded", greater_is_better=False
    ),
    FLIPS: MetricFacts(words.FIDELITY[FLIPS], "share", greater_is_better=False),
    WORSE: MetricFacts(words.FIDELITY[WORSE], "unbounded", greater_is_better=False),
    BETTER: MetricFacts(words.FIDELITY[BETTER], "unbounded", greater_is_better=True),
}
DETAILS = ("_low", "_high", "_stderr", "_samples")  # suffixes of numbers that only describe a score
_COUNTED = MetricFacts(words.SCORED_SAMPLES)
_UNKNOWN = MetricFacts()
_TAG = "compress.metric."
# A score that a hand-made table gives for two devices is stored twice: `accuracy`, `accuracy_gpu`.

Known = Mapping[str, MetricFacts]
Fact = typing.TypeVar("Fact")


def of(name: str, known: Known) -> MetricFacts:
    """Return the facts about a number of the group `quality`.

    Args:
        name: the metric's name, `quality/wer`.
        known: the facts that the runs record, by metric name: a comparison's `metrics`.
    """
    if name in FIDELITY:
        return FIDELITY[name]
    if name == COUNT:
        return _COUNTED
    return known.get(name) or installed(name.removeprefix(f"{GROUP}/"))


def recorded(texts: Mapping[str, str], prefix: str = _TAG) -> dict[str, MetricFacts]:
    """Return the facts that a run's tags record about its metrics, by metric name; leave out unreadable tags.

    Args:
        texts: the tags, or the facts of a result.
        prefix: the prefix of their names; `metric.` for the facts of a result.
    """
    facts_by_name = {
        f"{GROUP}/{key[len(prefix) :]}": _read(text) for key, text in texts.items() if key.startswith(prefix)
    }
    return {name: facts for name, facts in facts_by_name.items() if facts is not None}


def agreed(runs: Iterable[Run]) -> dict[str, MetricFacts]:
    """Return the facts that runs record about their metrics, by metric name.

    Facts that a run leaves out come from the metric installed here. Two metrics may have one name (from scripts of two
    teams): where runs contradict each other, the direction or the scale is unknown, and the first run's label is used.
    Runs can't change the facts and labels of this package's own metrics.
    """
    by_name: dict[str, list[MetricFacts]] = {}
    for run in runs:
        for name, facts in recorded(run.tags).items():
            by_name.setdefault(name, []).append(_completed(name, facts))
    return {
        name: dataclasses.replace(
            recorded[0],
            scale=_only({facts.scale for facts in recorded}),
            greater_is_better=_only({facts.greater_is_better for facts in recorded}),
        )
        for name, recorded in by_name.items()
    }


def _completed(name: str, facts: MetricFacts) -> MetricFacts:
    """Add the facts of the metric installed here to those of a run."""
    metric = name.removeprefix(f"{GROUP}/")
    installed_facts = installed(metric)
    if _plugin_of(metric, registry.names("metrics")) in registry.own("metrics"):
        return installed_facts
    better = installed_facts.greater_is_better if facts.greater_is_better is None else facts.greater_is_better
    return dataclasses.replace(
        facts,
        label=facts.label or installed_facts.label,
        scale=facts.scale or installed_facts.scale,
        greater_is_better=better,
    )


def _only(facts: set[Fact | None]) -> Fact | None:
    """Return the value that all runs with a value agree on; None where they differ."""
    values = facts - {None}
    return values.pop() if len(values) == 1 else None


def installed(name: str) -> MetricFacts:
    """Return the facts of the installed metric that produces a number of this name: `wer`, `f1_micro`.

    Return empty facts where there is no such metric.

    Args:
        name: the number's name without its group.
    """
    return _installed(name, registry.names("metrics"))


@lru_cache(maxsize=4096)
def _read(text: str) -> MetricFacts | None:
    return MetricFacts.from_text(text)


@lru_cache(maxsize=4096)
def _installed(name: str, metrics: tuple[str, ...]) -> MetricFacts:
    metric = _plugin_of(name, metrics)
    if not metric:
        return _UNKNOWN
    plugin: type[Metric] = registry.find("metrics", metric)
    facts = plugin.class_facts()
    options = _as_in_a_recipe(plugin, name[len(metric) + 1 :])
    label = {language: f"{text} {options}".strip() for language, text in facts.label.items()}
    return dataclasses.replace(facts, label=label)


def _as_in_a_recipe(plugin: type[Metric], text: str) -> str:
    """Return the options at the end of a number's name as a recipe writes them: `k=2` for `k_2`."""
    for option in dataclasses.fields(plugin):
        text = re.sub(rf"(^|_){option.name}_(?=[^_])", rf"\1{option.name}=", text)
    return text


@lru_cache(maxsize=4096)
def _plugin_of(name: str, metrics: tuple[str, ...]) -> str:
    """Return the installed metric that produces a number of this name; empty where none does."""
    candidates = sorted((metric for metric in metrics if name == metric or name.startswith(f"{metric}_")), key=len)
    for metric in reversed(candidates):
        try:
            plugin: type[Metric] = registry.find("metrics", metric)
        except CompressError:  # a broken plugin of another distribution counts as not installed
            continue
        options = name[len(metric) + 1 :]
        if not options or options in words.DEVICES or _are_options(plugin, options):
            return metric
    return ""


def _are_options(plugin: type[Metric], text: str) -> bool:
    """Return whether a text can be the options at the end of a number's name: `micro`, `word_order_2`, `binary_cat`.

    Free text (`cat`) must follow another option; otherwise any name with the same beginning would match.
    """
    hints = typing.get_type_hints(plugin, include_extras=False)
    names = [option.name for option in dataclasses.fields(plugin) if option.init]
    choices = [str(choice) for name in names for choice in typing.get_args(hints[name]) if isinstance(choice, str)]
    keys = [f"{name}_" for name in names if hints[name] is not str]
    takes_text = any(hints[name] is str for name in names)
    unread = text
    while unread:
        choice = max((word for word in choices if f"{unread}_".startswith(f"{word}_")), key=len, default="")
        key = next((prefix for prefix in keys if unread.startswith(prefix)), "")
        if not (choice or key):
            return takes_text and unread != text
        unread = unread[len(choice) + 1 :] if choice else unread[len(key) :].partition("_")[2]
    return True
