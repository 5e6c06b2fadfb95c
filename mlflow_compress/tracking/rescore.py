"""`rescore`: computes metrics from the predictions that a run kept, without its model.

The computation is the same as in scoring: same metrics, same predictions, same resampling with the same seed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, StoreError, named_line
from mlflow_compress.measuring import quality
from mlflow_compress.measuring.one_process import Listener
from mlflow_compress.measuring.quality import PREDICTIONS, STATISTICS
from mlflow_compress.model import SCORING, TEXTS_SCORING
from mlflow_compress.networks.class_scores import Ranking, taken
from mlflow_compress.records import Variant
from mlflow_compress.scoring import bootstrap, class_table, statistics_file
from mlflow_compress.scoring.hf_evaluate import is_code, metrics_of
from mlflow_compress.scoring.lm_eval_tasks import is_task
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import Metric
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Spool
from mlflow_compress.untrusted import Malformed, check_size, parse_json

_VARIANT = "variant.json"


@dataclass(frozen=True)
class Rescored:
    """The result of scoring kept predictions again.

    Attributes:
        scores: the new scores.
        logged: the run's own numbers, by their name on the tracking server.
    """

    scores: bootstrap.Scores
    logged: Mapping[str, float]

    def lines(self) -> list[str]:
        """Return a line for each score, with its interval, and whether it equals the logged one."""
        return [
            *(
                f"{name}: {self._value(name)} (n={self.scores.samples}{self._before(name)})"
                for name in self.scores.by_name
            ),
            *(f"{name}: no value: {reason}" for name, reason in self.scores.undefined.items()),
        ]

    def _value(self, name: str) -> str:
        score = self.scores.by_name[name]
        ends = "" if score.low is None else f" [{score.low:.6g}, {score.high:.6g}]"
        return f"{score.value:.6g}{ends}"

    def _before(self, name: str) -> str:
        logged = self.logged.get(f"quality/{name}")
        if logged is None:
            return "; new"
        is_same = math.isclose(logged, self.scores.by_name[name].value, rel_tol=1e-9, abs_tol=1e-12)
        return "; as logged" if is_same else f"; logged: {logged:.6g}"


def _ignore(event: Mapping[str, Any]) -> None:
    pass


def of_file(path: Path, entries: Sequence[str], seed: int = 0, listener: Listener = _ignore) -> Rescored:
    """Score the predictions in a local `predictions.json`.

    Args:
        path: the file.
        entries: the metrics, as in a recipe.
        seed: the seed for resampling.
        listener: called with each progress event: `stage`, and where known `done`, `total`, `seconds_left`.

    Raises:
        RecipeError: no metric is named, a metric needs other predictions, or the file has no predictions.
    """
    if not entries:
        raise RecipeError(f"Which metric? {path} does not record its metrics. Give --metric NAME.")
    try:
        check_size(path.name, path.stat().st_size, quality.MOST_BYTES)
        content = path.read_bytes()
    except (OSError, Malformed) as error:
        raise RecipeError(f"The predictions can't be read: {error}") from error
    metrics = metrics_of(_of_predictions(entries), Path(), load=True)
    beside = path.with_name(STATISTICS)
    try:
        class_scores = _class_scores(metrics, lambda: beside.read_bytes() if beside.is_file() else None)
    except OSError as error:
        raise RecipeError(f"The scores of the classes can't be read: {error}") from error
    return Rescored(_score(content, str(path), metrics, seed, listener, class_scores), {})


def of_run(store: Store, run_id: str, entries: Sequence[str], log: bool, listener: Listener = _ignore) -> Rescored:
    """Score the predictions that a run kept.

    Args:
        store: the tracking store.
        run_id: the run.
        entries: the metrics, as in a recipe; empty: the metrics of the run.
        log: whether to add the scores to the run.
        listener: called with each progress event, as in `of_file`.

    Raises:
        StoreError: there is no such run, or it has no predictions.
        RecipeError: there is no such metric, or it needs other predictions.
    """
    run = reading.run(store, run_id)
    try:
        described = reading.artifact(store, run_id, _VARIANT)
        content = reading.artifact(store, run_id, PREDICTIONS, quality.MOST_BYTES)
        variant = None if described is None else Variant.from_json(parse_json(described, _VARIANT))
    except Malformed as error:
        raise StoreError(f"The run {run_id} ({run.name}) can't be scored: {error}") from error
    if variant is None:
        raise StoreError(f"The run {run_id} ({run.name}) is not a run of compress-bench: it has no {_VARIANT}.")
    names = _of_predictions(entries) if entries else tuple(name for name in variant.metrics if not is_task(name))
    if not names:
        raise RecipeError(
            f"The run {run_id} ({run.name}) has scores of lm-eval tasks only, which have no predictions to score again."
        )
    if content is None:
        raise StoreError(
            f"The run {run_id} ({run.name}) has no predictions: its quality was not scored. Measure it again with data "
            "to score."
        )
    folder = Path() if entries else Path(variant.folder)
    gives = registry.find("families", variant.family).gives
    if code := [] if entries else [name for name in names if is_code(name)]:
        raise RecipeError(
            f"The run's metric {code[0]} is Python code. If you trust its source, name it: --metric {code[0]}"
        )
    metrics = metrics_of(names, folder, load=True, gives=gives)
    class_scores = _class_scores(
        metrics, lambda: reading.artifact(store, run_id, STATISTICS, statistics_file.MOST_PACKED_BYTES)
    )
    scores = _score(content, f"the run {run_id}", metrics, variant.seed, listener, class_scores)
    rescored = Rescored(scores, run.metrics)
    if log:
        with Spool().alone():  # another process may add to the same file
            stated = {name: text for name in (SCORING, TEXTS_SCORING) if (text := run.said(f"compress.{name}"))}
            facts = quality.facts_of(rescored.scores, quality.scoring_of(metrics, stated))
            statistics = {STATISTICS: _statistics(rescored.scores, store, run_id)}
            writing.add_to_run(store, run_id, rescored.scores.numbers(), facts, statistics)
    return rescored


def _of_predictions(entries: Sequence[str]) -> Sequence[str]:
    """Return the named metrics.

    Raises:
        RecipeError: One is a task of lm-eval, which asks the model itself.
    """
    for entry in entries:
        if is_task(entry):
            raise RecipeError(
                f"{entry} asks the model itself, so it can't be computed from kept predictions. Name it in the recipe "
                "(metrics: [...]) and measure the variant again."
            )
    return entries


def _class_scores(metrics: Mapping[str, Metric], read: Callable[[], bytes | None]) -> Statistics | None:
    """Return the scores of the classes from a file of statistics, if a metric needs them and the file has them.

    Args:
        metrics: the metrics.
        read: reads the content of the file; None if there is none.

    Raises:
        RecipeError: the file is not valid.
    """
    if all(metric.takes != "scores" for metric in metrics.values()):
        return None
    try:
        content = read()
        if content is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, STATISTICS)
            path.write_bytes(content)
            return statistics_file.read(path).get(class_table.POOL)
    except Malformed as error:
        raise RecipeError(f"The scores of the classes can't be read: {error}") from error


def _score(
    content: bytes,
    origin: str,
    metrics: Mapping[str, Metric],
    seed: int,
    listener: Listener,
    class_scores: Statistics | None = None,
) -> bootstrap.Scores:
    def drawn(done: int, total: int | None, seconds_left: float | None) -> None:
        stage = "resampling for the intervals"
        listener({"stage": stage, "done": done, "total": total, "seconds_left": seconds_left})

    listener({"stage": "reading the predictions"})
    try:
        references, predictions = quality.read_predictions(content)
        if class_scores is not None:
            predictions = list(class_table.with_scores(predictions, class_scores))
    except Malformed as error:
        raise RecipeError(f"The predictions of {origin} can't be read: {error}") from error
    listener({"stage": f"scoring {len(predictions):,} predictions"})
    for name, metric in metrics.items():
        for reference, prediction in zip(references, taken(metric.takes, predictions), strict=True):
            if metric.takes == "scores" and not isinstance(prediction, (Ranking, Mapping)):
                raise RecipeError(
                    f"{name} takes the scores of all classes, which {origin} did not keep. Measure the variant again."
                )
            if not _fits(metric.takes, reference, prediction):
                raise RecipeError(
                    f"{name} takes {metric.takes}; the predictions of {origin} are different: "
                    f"{str(prediction)[:60]!r} for {str(reference)[:60]!r}."
                )
    try:
        return bootstrap.score(metrics, references, predictions, seed, drawn)
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:  # the file may be any JSON
        reason = error if isinstance(error, ValueError) else named_line(error)
        raise RecipeError(f"The predictions of {origin} can't be scored by these metrics: {reason}.") from error


def _fits(takes: str, reference: Any, prediction: Any) -> bool:
    """Return whether a metric for a kind of predictions can take this prediction."""
    if takes == "likelihoods":
        return isinstance(prediction, Mapping) and "nll" in prediction
    if takes in ("boxes", "masks", "keypoints", "rotated_boxes", "pixels"):
        return all(isinstance(answer, Mapping) and takes in answer for answer in (reference, prediction))
    if takes == "tags":
        return isinstance(reference, list) and isinstance(prediction, list)
    if takes == "texts":
        return isinstance(reference, str) and isinstance(prediction, str)
    if takes != "labels":
        return True
    if isinstance(reference, (list, Mapping)):
        return False
    return not isinstance(prediction, Mapping) or reference in prediction


def _statistics(scores: bootstrap.Scores, store: Store, run_id: str) -> bytes:
    """Return the run's file of statistics with the new ones added.

    Raises:
        StoreError: the existing file is not valid.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, STATISTICS)
        existing = {}
        try:
            old_statistics = reading.artifact(store, run_id, STATISTICS, statistics_file.MOST_PACKED_BYTES)
            if old_statistics is not None:
                path.write_bytes(old_statistics)
                existing = statistics_file.read(path)
        except Malformed as error:
            raise StoreError(f"Nothing was added to the run {run_id}: {error}") from error
        statistics_file.write({**existing, **scores.statistics()}, path)
        return path.read_bytes()
