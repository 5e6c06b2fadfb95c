"""Says what is known of a quality metric: what the runs say of it, else what the metric installed here says.

Runs of 0.1 say nothing of their metrics, so theirs are looked up by name among those that are installed here.
"""

from __future__ import annotations

import dataclasses
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
# Numbers that every variant has beside its scores: how far its outputs are from the original's. They are no metrics,
# since they need no references, and stand for nobody's quality.
FIDELITY: Mapping[str, MetricFacts] = {
    "quality/top1_agreement": MetricFacts(words.FIDELITY["quality/top1_agreement"], "share", greater_is_better=True),
    OUTPUT_ERROR: MetricFacts(words.FIDELITY[OUTPUT_ERROR], "unbounded", greater_is_better=False),
    "quality/kl_divergence_nats": MetricFacts(
        words.FIDELITY["quality/kl_divergence_nats"], "unbounded", greater_is_better=False
    ),
}
_COUNTED = MetricFacts(words.SCORED_SAMPLES)
_UNKNOWN = MetricFacts()
_TAG = "compress.metric."
# A score that a hand-made table gives for two devices is kept twice: `accuracy`, `accuracy_gpu`.

Known = Mapping[str, MetricFacts]
Fact = typing.TypeVar("Fact")


def of(name: str, known: Known) -> MetricFacts:
    """Return what is known of a number of the group `quality`.

    Args:
        name: `quality/wer`.
        known: what the runs say, by metric name: a comparison's `metrics`.
    """
    if name in FIDELITY:
        return FIDELITY[name]
    if name == COUNT:
        return _COUNTED
    return known.get(name) or installed(name.removeprefix(f"{GROUP}/"))


def said(texts: Mapping[str, str], prefix: str = _TAG) -> dict[str, MetricFacts]:
    """Return what a run's tags say of its metrics, by metric name; what can't be read is left out.

    Args:
        texts: the tags; or the facts of a result.
        prefix: of the names; of a result's facts it is `metric.`.
    """
    read = {f"{GROUP}/{key[len(prefix) :]}": _read(text) for key, text in texts.items() if key.startswith(prefix)}
    return {name: facts for name, facts in read.items() if facts is not None}


def agreed(runs: Iterable[Run]) -> dict[str, MetricFacts]:
    """Return what runs say of their metrics, by metric name.

    What a run leaves out is what the metric installed here says. Two metrics of one name are possible (a script of each
    team's own): where runs contradict each other, the direction or the scale is not known, and the first run's label
    stands. What this package's own metrics are, and are called, is no run's to say.
    """
    by_name: dict[str, list[MetricFacts]] = {}
    for run in runs:
        for name, facts in said(run.tags).items():
            by_name.setdefault(name, []).append(_completed(name, facts))
    return {
        name: dataclasses.replace(
            every[0],
            scale=_only({facts.scale for facts in every}),
            greater_is_better=_only({facts.greater_is_better for facts in every}),
        )
        for name, every in by_name.items()
    }


def _completed(name: str, facts: MetricFacts) -> MetricFacts:
    """Add what the metric installed here knows to what a run says."""
    metric = name.removeprefix(f"{GROUP}/")
    here = installed(metric)
    if _plugin_of(metric, registry.names("metrics")) in registry.own("metrics"):
        return here
    better = here.greater_is_better if facts.greater_is_better is None else facts.greater_is_better
    return dataclasses.replace(
        facts, label=facts.label or here.label, scale=facts.scale or here.scale, greater_is_better=better
    )


def _only(said_by_runs: set[Fact | None]) -> Fact | None:
    """Return what all runs that say something agree on."""
    values = said_by_runs - {None}
    return values.pop() if len(values) == 1 else None


def installed(name: str) -> MetricFacts:
    """Return what the metric installed here says whose number has this name: `wer`, `f1_micro`; else that nothing is.

    Args:
        name: as the number is called, without its group.
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
    options = name[len(metric) + 1 :]
    label = {language: f"{text} {options}".strip() for language, text in facts.label.items()}
    return dataclasses.replace(facts, label=label)


@lru_cache(maxsize=4096)
def _plugin_of(name: str, metrics: tuple[str, ...]) -> str:
    """Return which of the installed metrics makes a number of this name; empty where none does."""
    beginnings = sorted((each for each in metrics if name == each or name.startswith(f"{each}_")), key=len)
    for metric in reversed(beginnings):
        try:
            plugin: type[Metric] = registry.find("metrics", metric)
        except CompressError:  # another distribution's, broken: its numbers are as those of one that is not installed
            continue
        options = name[len(metric) + 1 :]
        if not options or options in words.DEVICES or _are_options(plugin, options):
            return metric
    return ""


def _are_options(plugin: type[Metric], text: str) -> bool:
    """Return whether a text can be the options that a number's name ends in: `micro`, `word_order_2`, `binary_cat`.

    A free text (`cat`) is one only behind another option: otherwise a name that merely begins alike would pass.
    """
    hints = typing.get_type_hints(plugin, include_extras=False)
    names = [each.name for each in dataclasses.fields(plugin) if each.init]
    choices = [str(choice) for each in names for choice in typing.get_args(hints[each]) if isinstance(choice, str)]
    keys = [f"{each}_" for each in names if hints[each] is not str]
    takes_text = any(hints[each] is str for each in names)
    rest = text
    while rest:
        choice = max((each for each in choices if f"{rest}_".startswith(f"{each}_")), key=len, default="")
        key = next((each for each in keys if rest.startswith(each)), "")
        if not (choice or key):
            return takes_text and rest != text
        rest = rest[len(choice) + 1 :] if choice else rest[len(key) :].partition("_")[2]
    return True
