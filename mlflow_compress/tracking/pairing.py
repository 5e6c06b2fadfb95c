"""Pairs each variant's scores with the original's, on the same samples.

Here both are known sample by sample; a report would have to download a file for each run. The samples whose score
changed are written to `flips.json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import one_line
from mlflow_compress.files import whole_file
from mlflow_compress.measuring.quality import FLIPS, PREDICTIONS, STATISTICS, read_predictions
from mlflow_compress.records import MetricFacts, Result, finite, to_json
from mlflow_compress.reporting import metric_facts
from mlflow_compress.scoring import bootstrap, class_table, fidelity, statistics_file, token_table
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.scoring.hf_evaluate import metrics_of
from mlflow_compress.sockets import AdditiveMetric, PooledMetric
from mlflow_compress.untrusted import Malformed

UNPAIRED = "unpaired"
_MOST_TEXT_BYTES = 64 * 2**20  # of predictions, for the table of changed samples

# fields that do not change the samples
_APART = ("method", "chain", "batch_size", "devices", "budget", "interleave", "threads", "requires", "published")


@dataclass(frozen=True)
class _Original:
    """The scores of an original: by sample and in total, by name; and its answers, if they are not too large."""

    statistics: Mapping[str, statistics_file.Statistics]
    measurements: Mapping[str, float]
    answers: Sequence[Any]


class Originals:
    """Keeps the scores of originals, sample by sample: those of a command, and logged ones."""

    def __init__(self) -> None:
        """Start without originals."""
        self._kept: dict[str, _Original] = {}

    def lack(self, result: Result, folder: Path) -> bool:
        """Return whether a variant was scored sample by sample, and its original is not kept here.

        Args:
            result: the result of a variant.
            folder: the variant's folder, with the files from scoring.
        """
        is_paired = not result.variant.is_original and (folder / STATISTICS).is_file()
        return is_paired and _samples(result) not in self._kept

    def pair(self, result: Result, folder: Path) -> Result:
        """Add to a result the differences of its scores from its original's, if that was scored before.

        For each metric: `quality/wer_difference`, with the ends of its 95 % interval as `_low` and `_high`, and whether
        the interval excludes 0, as fact `significant.wer`. With fewer than ten samples, and for a metric without scores
        of single samples, there is only the difference. Unreadable statistics are not paired, and the fact `unpaired`
        states why. See `fidelity` for the other numbers. The table of changed samples is written into the folder.

        Args:
            result: the result of a variant.
            folder: the variant's folder, with the files from scoring.
        """
        path = folder / STATISTICS
        if not path.is_file():
            return result
        try:
            own, samples = statistics_file.read(path), _samples(result)
        except (Malformed, OSError) as error:  # the model's own code may have written this file
            return dataclasses.replace(result, facts={**result.facts, UNPAIRED: one_line(error)})
        if result.variant.is_original:
            self._kept.setdefault(samples, _Original(own, result.measurements, _answers(folder)[1]))
            return result
        if (original := self._kept.get(samples)) is None:
            return result
        numbers, facts = _differences(result, own, original)
        numbers |= _changes(result, own, original, folder)
        return dataclasses.replace(
            result, measurements={**result.measurements, **finite(numbers)}, facts={**result.facts, **facts}
        )


def _differences(
    result: Result, own: Mapping[str, statistics_file.Statistics], original: _Original
) -> tuple[dict[str, float], dict[str, str]]:
    numbers, facts = {}, {}
    variant = result.variant
    for name, metric in metrics_of(variant.metrics, Path(variant.folder)).items():
        score = f"quality/{name}"
        kept_name = bootstrap.kept_as(name, metric)
        if not isinstance(metric, (AdditiveMetric, PooledMetric)):
            if score in result.measurements and score in original.measurements:
                numbers[f"{score}_difference"] = result.measurements[score] - original.measurements[score]
            continue
        if kept_name not in own or kept_name not in original.statistics:
            continue
        try:
            value, low, high = bootstrap.paired(own[kept_name], original.statistics[kept_name], metric, variant.seed)
        except (ValueError, LookupError, ArithmeticError):  # the statistics do not fit together
            continue
        numbers[f"{score}_difference"] = value
        if low is not None and high is not None:
            numbers |= {f"{score}_difference_low": low, f"{score}_difference_high": high}
            facts[f"significant.{name}"] = "no" if low <= 0 <= high else "yes"
    return numbers, facts


def _changes(
    result: Result, own: Mapping[str, statistics_file.Statistics], original: _Original, folder: Path
) -> dict[str, float]:
    """Return how far the answers are from the original's, and write the changed samples into the folder."""
    numbers: dict[str, float] = {}
    names: list[Sequence[Any]] = []
    if class_table.POOL in own and class_table.POOL in original.statistics:
        with contextlib.suppress(ValueError):  # they do not fit together
            tables = [ClassTable.read(side[class_table.POOL]) for side in (original.statistics, own)]
            numbers |= fidelity.of_classes(tables[1], tables[0])
            names = [[table.labels[index] for index in table.answers] for table in tables]
    with contextlib.suppress(ValueError):
        predicted = [token_table.read(side) for side in (original.statistics, own)]
        if predicted[0] is not None and predicted[1] is not None:
            numbers |= fidelity.of_tokens(predicted[1], predicted[0])
    metrics = metrics_of(result.variant.metrics, Path(result.variant.folder))
    if not (name := fidelity.chosen_metric(metrics, own)) or name not in original.statistics:
        return numbers
    metric = metrics[name]
    assert isinstance(metric, AdditiveMetric)  # `chosen_metric` chooses no other
    try:
        stated = metric_facts.recorded(result.facts, "metric.").get(f"quality/{name}", MetricFacts())
        statistics = own[name], original.statistics[name]
        flips = fidelity.Flips.of(metric, *statistics, greater_is_better=stated.greater_is_better)
    except (ValueError, LookupError, ArithmeticError):
        return numbers
    if flips is None:
        return numbers
    references, answers = _answers(folder)
    if len(references) == len(flips.before):
        before = names[0] if names else original.answers if len(original.answers) == len(references) else ()
        table = flips.table(references, before, names[1] if names else answers)
        with whole_file(folder / FLIPS) as partial_path:
            partial_path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return numbers | flips.numbers()


def _answers(folder: Path) -> tuple[list[Any], list[Any]]:
    """Return the references and answers in a variant's folder; nothing if they are absent, too large or invalid."""
    path = folder / PREDICTIONS
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_TEXT_BYTES:
            return [], []
        return read_predictions(path.read_bytes())
    except (OSError, Malformed):
        return [], []


def _samples(result: Result) -> str:
    """Return a text that identifies the model, its samples and the protocols, whatever the compression."""
    described = {key: value for key, value in to_json(result.variant).items() if key not in _APART}
    protocols = {name: text for name, text in result.facts.items() if name.startswith("protocol.")}
    scored = result.facts.get("data_digest", ""), result.measurements.get("quality/samples"), protocols
    return json.dumps([described, scored], sort_keys=True, default=str)
