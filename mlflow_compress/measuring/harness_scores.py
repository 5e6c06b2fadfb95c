"""`added`: score the tasks of lm-evaluation-harness that a variant names, each on its own samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from mlflow_compress.errors import RecipeError, one_line
from mlflow_compress.measuring import published
from mlflow_compress.records import PUBLISHED, CautionKind, Outcome, Part, Variant
from mlflow_compress.scoring import bootstrap
from mlflow_compress.scoring.lm_eval_model import Clock, OutOfTime
from mlflow_compress.scoring.lm_eval_tasks import HarnessTask
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import Family, Model

Progress = Callable[[int, int | None, float | None], None]

_LONGEST_NAME = 500  # characters of a data set's name in MLflow
_SOURCE = "lm-evaluation-harness"

TASK_NOT_SCORED = CautionKind(
    "task_not_scored",
    short={"en": "a task of lm-eval was not scored", "ru": "задача lm-eval не оценена"},
    message={"en": "the task {task} was not scored: {reason}", "ru": "задача {task} не оценена: {reason}"},
    advice={
        "en": "Allow more time (--score-seconds), or score fewer samples: lm_eval:{task}:limit=100.",
        "ru": "Дайте больше времени (--score-seconds) или меньше примеров: lm_eval:{task}:limit=100.",
    },
)


def added(
    part: Part | None,
    tasks: Mapping[str, HarnessTask],
    family: Family,
    model: Model,
    variant: Variant,
    seconds: float,
    progress: Progress,
) -> tuple[Part, dict[str, Statistics]]:
    """Return a part with the scores of tasks as well, and their statistics for pairing.

    A task that is not finished in time has no score, and the part has a caution.

    Args:
        part: The scores of the data; None if it was not scored. Then the tasks are the scored data.
        tasks: The tasks by the names of their scores.
        family: The model's family.
        model: The model.
        variant: Its variant.
        seconds: Time for all tasks.
        progress: Called with the requests done, all requests, and the seconds left.

    Raises:
        RecipeError: There is no score at all, or a task does not fit the model.
    """
    numbers: dict[str, float] = {}
    facts: dict[str, str] = {}
    statistics: dict[str, Statistics] = {}
    digests: list[str] = []
    cautions = list(part.cautions) if part is not None else []
    clock = Clock(seconds, progress)
    for name, task in tasks.items():
        try:
            answered = task.ask(family.text_model(model), variant.limit, clock)
        except OutOfTime as reason:
            cautions.append(TASK_NOT_SCORED.of(task=task.name, reason=one_line(reason)))
            continue
        rows = answered.samples
        scores = bootstrap.score({name: task}, [None] * len(rows), rows, variant.seed, progress)
        numbers |= {key: value for key, value in scores.numbers().items() if key != "quality/samples"}
        numbers[f"quality/{name}_samples"] = float(len(rows))
        (kept,) = scores.statistics().values()
        if math.isfinite(error := task.error(kept.values)):
            numbers[f"quality/{name}_stderr"] = error
        statistics[name] = kept
        digests.append(answered.digest)
        facts |= _facts(name, scores)
        if variant.is_original and name in variant.published:
            is_subset = (variant.limit if task.limit is None else task.limit) is not None
            stated = dataclasses.replace(variant.published[name], data=_SOURCE)  # a task has its own data
            verdict = published.verdicts(scores, {name: stated}, _SOURCE, is_subset)[name]
            facts[f"{PUBLISHED}{name}"] = verdict.to_text()
    if part is None and not statistics:
        raise RecipeError(cautions[0].message)
    if part is None:
        counts = [len(kept.values) for kept in statistics.values()]
        numbers["quality/samples"] = float(sum(counts))
        names = ", ".join(f"lm_eval:{tasks[name].name}" for name in statistics)[:_LONGEST_NAME]
        if "data_digest" not in model.facts:
            facts |= {"data_name": names, "data_source": _SOURCE, "data_digest": "".join(digests)[:36]}
        facts["data"] = names
        part = Part(Outcome("ok"))
    return (
        dataclasses.replace(
            part,
            measurements={**part.measurements, **numbers},
            facts={**part.facts, **facts},
            cautions=tuple(cautions),
        ),
        statistics,
    )


def _facts(name: str, scores: bootstrap.Scores) -> dict[str, str]:
    """Return the protocol and the facts of a score, by the names of a result's facts."""
    return {f"protocol.{name}": scores.protocols()[name], f"metric.{name}": scores.facts()[name].to_text()}
