"""`score`: predict every sample once, and compute all metrics from these predictions.

Files are written beside the result: `predictions.json`, a table that MLflow shows and from which other metrics can be
computed later; `statistics.npz`, with which another run on the same samples can be paired with this one, and which has
the scores of a classifier's classes; for a classifier also `confusion_matrix.json` and `classes.json`, its scores class
by class.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.data import spec
from mlflow_compress.errors import RecipeError, WorkerError
from mlflow_compress.files import whole_file
from mlflow_compress.measuring import checks, harness_scores, published
from mlflow_compress.model import SCORING, TEXTS_SCORING
from mlflow_compress.networks import model_card, next_tokens
from mlflow_compress.networks.class_scores import Ranking, lacks_number, taken
from mlflow_compress.networks.next_tokens import Kept, NextTokens
from mlflow_compress.networks.random_state import seed_all
from mlflow_compress.records import PUBLISHED, Caution, CautionKind, Outcome, Part, Variant, metric_group
from mlflow_compress.scoring import bootstrap, class_table, lm_eval_tasks, statistics_file, token_table, writing_style
from mlflow_compress.scoring.class_table import ClassTable
from mlflow_compress.scoring.confusion import Confusion
from mlflow_compress.scoring.hf_evaluate import metrics_of
from mlflow_compress.scoring.lm_eval_tasks import HarnessTask
from mlflow_compress.scoring.ranking_curves import curves_of
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import Family, Metric, Model, Sample
from mlflow_compress.untrusted import Malformed, parse_json

PREDICTIONS, STATISTICS = "predictions.json", "statistics.npz"
CONFUSION, CLASSES, FLIPS = "confusion_matrix.json", "classes.json", "flips.json"
MOST_BYTES = 2**30  # of predictions, enough for millions of sentences
MOST_CLASS_SCORES = 2**24  # logits that are kept: 64 MiB, for example 10,000 pictures with 1,000 classes
_AT_ONCE = 32

SCORING_CUT = CautionKind(
    "scoring_cut",
    short={"en": "not all samples were scored", "ru": "качество измерено не на всех примерах"},
    message={
        "en": "quality was scored on the first {done} of {all} samples, then time ran out",
        "ru": "качество измерено на первых {done} примерах из {all}, потом время вышло",
    },
    advice={"en": "Allow more time: --score-seconds.", "ru": "Дайте больше времени: --score-seconds."},
)

INTERVAL_UNKNOWN = CautionKind(
    "interval_unknown",
    short={
        "en": f"fewer than {bootstrap.FEWEST_SAMPLES} samples were scored: the interval of quality is unknown",
        "ru": f"оценено меньше {bootstrap.FEWEST_SAMPLES} примеров: доверительный интервал качества неизвестен",
    },
    message={
        "en": "quality was scored on {samples} samples: its interval is unknown",
        "ru": "качество измерено на {samples} примерах: доверительный интервал неизвестен",
    },
    advice={
        "en": f"Score at least {bootstrap.FEWEST_SAMPLES} samples, preferably hundreds.",
        "ru": f"Возьмите хотя бы {bootstrap.FEWEST_SAMPLES} примеров, лучше сотни.",
    },
)

METRIC_UNDEFINED = CautionKind(
    "metric_undefined",
    short={"en": "a metric has no value for these samples", "ru": "метрика не определена на этих примерах"},
    message={"en": "{metric} has no value: {reason}", "ru": "у метрики {metric} нет значения: {reason}"},
    advice={
        "en": "Score other samples, or leave the metric out.",
        "ru": "Возьмите другие примеры или уберите метрику.",
    },
)

Progress = Callable[[int, int | None, float | None], None]


def score(family: Family, model: Model, variant: Variant, folder: Path, progress: Progress) -> Part:
    """Predict as many samples as fit into the time, and score them.

    Tasks of lm-evaluation-harness follow, in the time that is left; they bring their own samples.

    Args:
        family: The model's family.
        model: The restored model.
        variant: Variant with the data and metrics.
        folder: Folder for the two files.
        progress: Called with the samples done, all samples, and the seconds left.

    Returns:
        A part with the numbers, their protocols, the facts of their metrics, and cautions.
    """
    started = time.monotonic()
    metrics, tasks = split(metrics_for(family, model, variant))
    has_data = bool(variant.data and metrics)
    of_data = {name: score for name, score in variant.published.items() if name not in tasks}
    part: Part | None = None
    statistics: dict[str, Statistics] = {}
    if has_data:
        without_tasks = dataclasses.replace(variant, published=of_data)
        part, statistics = _of_data(family, model, without_tasks, metrics, folder, progress)
    if tasks:
        seconds = variant.budget.score_seconds - (time.monotonic() - started)
        part, of_tasks = harness_scores.added(part, tasks, family, model, variant, seconds, progress)
        statistics |= of_tasks
        if not has_data:
            counts = [len(kept.values) for kept in of_tasks.values()]
            part = dataclasses.replace(part, cautions=(*part.cautions, *_of_count(min(counts))))
    assert part is not None, "nothing is scored: see `is_scored`"
    statistics_file.write(statistics, folder / STATISTICS)
    return part


def _of_count(samples: int) -> list[Caution]:
    """Judge the number of scored samples."""
    is_bounded = samples >= bootstrap.FEWEST_SAMPLES
    return checks.quality(samples) if is_bounded else [INTERVAL_UNKNOWN.of(samples=samples)]


def is_scored(variant: Variant) -> bool:
    """Return whether a variant has data to score, or metrics that bring their own."""
    return bool(variant.data) or any(map(lm_eval_tasks.is_task, variant.metrics))


def split(metrics: Mapping[str, Metric]) -> tuple[dict[str, Metric], dict[str, HarnessTask]]:
    """Return the metrics of the data, and the tasks of lm-evaluation-harness, which bring their own."""
    tasks = {name: metric for name, metric in metrics.items() if isinstance(metric, HarnessTask)}
    return {name: metric for name, metric in metrics.items() if name not in tasks}, tasks


def _of_data(
    family: Family,
    model: Model,
    variant: Variant,
    metrics: Mapping[str, Metric],
    folder: Path,
    progress: Progress,
) -> tuple[Part, dict[str, Statistics]]:
    """Score the data; return the part, and the statistics for pairing."""
    assert variant.data is not None
    model.asked = frozenset(metric.takes for metric in metrics.values())
    samples = family.samples(model, variant.data, Path(variant.folder), variant.limit, variant.seed)
    seed_all(variant.seed)  # a module may draw random numbers
    predictions, tokens, seconds = _predicted(family, model, samples, variant.budget.score_seconds, progress)
    predicted = samples[: len(predictions)]
    if lacking := sum(map(lacks_number, predictions)):
        raise WorkerError(
            f"the model's scores of {lacking:,} of {len(predictions):,} samples are not finite numbers (NaN or "
            "infinity), so there is no quality. Check the inputs and the weights for such values."
        )
    references = [sample.reference for sample in predicted]
    try:
        scores = bootstrap.score(metrics, references, predictions, variant.seed, progress)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    answers_shown = taken("labels", predictions)
    is_text = all(isinstance(answer, Mapping) and "text" in answer for answer in predictions)
    with whole_file(folder / PREDICTIONS) as partial_path:
        partial_path.write_text(_table(references, answers_shown), encoding="utf-8")
    class_scores = _class_scores(references, predictions)
    kept = {} if class_scores is None else {class_table.POOL: class_scores.statistics()}
    if any(metric.takes in ("labels", "scores") for metric in metrics.values()):
        _write_classes(references, answers_shown, class_scores, folder)
    cautions = _of_count(len(predicted))
    cautions += [METRIC_UNDEFINED.of(metric=name, reason=reason) for name, reason in scores.undefined.items()]
    cautions += writing_style.compared(metrics, references, taken("texts", predictions) if is_text else answers_shown)
    if len(predicted) < len(samples):
        cautions.append(SCORING_CUT.of(done=len(predicted), all=len(samples)))
    facts = {**facts_of(scores, scoring_of(metrics, model.facts)), "data": variant.data}
    if variant.is_original:
        is_subset = len(predicted) < len(samples) or variant.limit is not None
        facts |= _published(variant, scores, is_subset)
    if "data_digest" not in model.facts:
        facts |= {"data_name": variant.data, "data_source": variant.source, "data_digest": _digest(samples)}
    rates = family.scored_rates([sample.inputs for sample in predicted], seconds)
    numbers = scores.numbers() | {f"{metric_group(model.device)}/{name}": value for name, value in rates.items()}
    part = Part(Outcome("ok"), None, numbers, cautions=tuple(cautions), facts=facts)
    return part, {**kept, **token_table.statistics(tokens), **scores.statistics()}


def metrics_for(family: Family, model: Model, variant: Variant) -> dict[str, Metric]:
    """Build the metrics of a variant: those that it names, or those of its model if it only has its family's default.

    Raises:
        RecipeError: A metric can't be loaded, or does not fit the model's answers.
    """
    names = family.metrics_for(model) if tuple(variant.metrics) == family.metrics else variant.metrics
    return metrics_of(names, Path(variant.folder), load=True, gives=family.kinds(model))


def unscorable(metrics: Mapping[str, Metric], samples: Sequence[Sample]) -> dict[str, str]:
    """Return which metrics have no value for any answers to these samples, and why.

    Raises:
        RecipeError: None has a value.
    """
    references = [sample.reference for sample in samples]
    reasons = {}
    for name, metric in metrics.items():
        try:
            metric.require_scorable(references)
        except ValueError as error:
            reasons[name] = f"{name} has no value: {error}"
    if reasons and len(reasons) == len(metrics):
        raise RecipeError("; ".join(reasons.values()))
    return reasons


def scoring_of(metrics: Mapping[str, Metric], facts: Mapping[str, str]) -> dict[str, str]:
    """Return how the family computed the answers for each metric, as far as the facts of its model say so."""
    return {
        name: facts.get(TEXTS_SCORING if metric.takes == "texts" and TEXTS_SCORING in facts else SCORING, "")
        for name, metric in metrics.items()
    }


def facts_of(scores: bootstrap.Scores, scoring: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the facts of a result that are needed to read its scores.

    For each metric, these are its protocol (`protocol.wer`), if it has one, and its facts (`metric.wer`).

    Args:
        scores: The scores.
        scoring: How the answers for each metric were computed (see `scoring_of`), which is added to its protocol.
    """
    added = scoring or {}
    protocols = {
        name: "; ".join(filter(None, (text, added.get(name, "")))) for name, text in scores.protocols().items()
    }
    protocols = {f"protocol.{name}": text for name, text in protocols.items() if text}
    return protocols | {f"metric.{name}": facts.to_text() for name, facts in scores.facts().items()}


def _published(variant: Variant, scores: bootstrap.Scores, is_subset: bool) -> dict[str, str]:
    """Return the verdicts on an original's scores: compared with those of its recipe, else of its model card."""
    assert variant.data is not None
    stated = dict(variant.published)
    card = model_card.find(variant.source, variant.weights, Path(variant.folder))
    if card is not None:
        of_card = published.of_card(model_card.read(card), list(scores.by_name), variant.data)
        stated = {**of_card, **stated}
    verdicts = published.verdicts(scores, stated, variant.data, is_subset or spec.parse(variant.data).limit is not None)
    return {f"{PUBLISHED}{name}": verdict.to_text() for name, verdict in verdicts.items()}


def read_predictions(text: str | bytes) -> tuple[list[Any], list[Any]]:
    """Return the references and predictions of a `predictions.json` from an untrusted source.

    Raises:
        Malformed: It is not a valid table.
    """
    table = parse_json(text, PREDICTIONS, MOST_BYTES, finite=False)  # a likelihood may be infinite
    rows = table.get("data") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) >= 2 for row in rows):
        raise Malformed(f"{PREDICTIONS} is not a table of references and predictions.")
    return [row[0] for row in rows], [row[1] for row in rows]


def answers(family: Family, model: Model, samples: Sequence[Sample]) -> list[Any]:
    """Return one prediction for each sample.

    Raises:
        RecipeError: The number of predictions is wrong.
    """
    predictions = family.answers(model, [sample.inputs for sample in samples])
    if len(predictions) != len(samples):
        raise RecipeError(
            f"predict() returned {len(predictions)} predictions for {len(samples)} samples. Return one for each sample."
        )
    return predictions


def _predicted(
    family: Family, model: Model, samples: Sequence[Sample], seconds: float, progress: Progress
) -> tuple[list[Any], NextTokens | None, float]:
    """Return the predictions that fit into the time, those of next tokens, and the seconds that they took."""
    kept = Kept()
    model.asked |= {next_tokens.ASKED}
    started = time.monotonic()
    elapsed = 0.0
    predictions: list[Any] = []
    while len(predictions) < len(samples):
        chunk = samples[len(predictions) : len(predictions) + _AT_ONCE]
        answered = answers(family, model, chunk)
        kept.take(answered)
        if kept.is_full:
            model.asked -= {next_tokens.ASKED}
        predictions += answered
        elapsed = time.monotonic() - started
        progress(len(predictions), len(samples), elapsed / len(predictions) * (len(samples) - len(predictions)))
        if elapsed > seconds:
            break
    return predictions, kept.result(), elapsed


def _class_scores(references: Sequence[Any], predictions: Sequence[Any]) -> ClassTable | None:
    """Return the scores of all classes for pairing; None if there are none, or too many."""
    if not isinstance(predictions[0], Ranking) or len(predictions) * len(predictions[0].classes) > MOST_CLASS_SCORES:
        return None
    try:
        return ClassTable.of(references, predictions)
    except ValueError:  # a score is not a number, or a reference is not a class
        return None


def _write_classes(
    references: Sequence[Any], predictions: Sequence[Any], scores: ClassTable | None, folder: Path
) -> None:
    """Write the confusion matrix, and the scores class by class, if the answers are labels of classes."""
    confusion = Confusion.of(references, predictions)
    if confusion is None:
        return
    curves = None if scores is None else curves_of(scores)
    for name, table in ((CONFUSION, confusion.matrix()), (CLASSES, confusion.by_class(curves))):
        with whole_file(folder / name) as partial_path:
            partial_path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")


def _table(references: Sequence[Any], predictions: Sequence[Any]) -> str:
    """Return the table as JSON in the format of MLflow's `log_table`."""
    data = [list(pair) for pair in zip(references, predictions, strict=True)]
    return json.dumps({"columns": ["reference", "prediction"], "data": data}, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Convert array scalars to numbers, and arrays to lists, so that a table scores the same when it is read back."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _digest(samples: Sequence[Sample]) -> str:
    """Return a digest of the references, to identify the samples of a model with its own data."""
    text = json.dumps([sample.reference for sample in samples], ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
