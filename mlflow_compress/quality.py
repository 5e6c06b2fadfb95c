"""`score`: every sample is predicted once, and all metrics are made of these predictions.

Two files are left beside the result: `predictions.json`, a table as MLflow shows it, from which other metrics can be
made later, and `statistics.npz`, by which another run on the same samples can be paired with this one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress import checks, scores
from mlflow_compress.hf_evaluate import metrics_of
from mlflow_compress.records import Caution, Outcome, Part, Variant

PREDICTIONS, STATISTICS = "predictions.json", "statistics.npz"
_AT_ONCE = 32

Progress = Callable[[int, int | None, float | None], None]


def score(family: Any, model: Any, variant: Variant, folder: Path, progress: Progress) -> Part:
    """Predict, as many samples as fit into the time, and score.

    Args:
        family: the model's family.
        model: the restored model.
        variant: says which data and which metrics.
        folder: takes the two files.
        progress: told of samples done, of all, and the seconds left.

    Returns:
        A part with the numbers, their protocols as facts, and what to be careful about.
    """
    assert variant.data is not None
    metrics = metrics_of(variant.metrics, Path(variant.folder), load=True)
    samples = family.samples(model, variant.data, Path(variant.folder), variant.limit, variant.seed)
    predictions = _predicted(family, model, samples, variant.budget.score_seconds, progress)
    done = samples[: len(predictions)]
    references = [sample.reference for sample in done]
    found = scores.score(metrics, references, predictions, variant.seed)
    (folder / PREDICTIONS).write_text(_table(references, predictions), encoding="utf-8")
    scores.write(found, folder / STATISTICS)
    cautions = checks.quality(len(done))
    if len(done) < len(samples):
        what = f"quality was scored on the first {len(done)} of {len(samples)} samples: then the time was up"
        cautions.append(Caution("scoring_cut", what, "Allow more time: --score-seconds."))
    facts = {f"protocol.{name}": text for name, text in found.protocols().items() if text} | {"data": variant.data}
    return Part(Outcome("ok"), None, found.numbers(), cautions=tuple(cautions), facts=facts)


def read_predictions(text: str) -> tuple[list[Any], list[Any]]:
    """Give the references and the predictions of a `predictions.json`."""
    rows = json.loads(text)["data"]
    return [row[0] for row in rows], [row[1] for row in rows]


def _predicted(family: Any, model: Any, samples: Sequence[Any], seconds: float, progress: Progress) -> list[Any]:
    started = time.monotonic()
    predictions: list[Any] = []
    while len(predictions) < len(samples):
        several = samples[len(predictions) : len(predictions) + _AT_ONCE]
        predictions += family.answers(model, [sample.inputs for sample in several])
        taken = time.monotonic() - started
        progress(len(predictions), len(samples), taken / len(predictions) * (len(samples) - len(predictions)))
        if taken > seconds:
            break
    return predictions


def _table(references: Sequence[Any], predictions: Sequence[Any]) -> str:
    """Write the table as MLflow's `log_table` does."""
    data = [list(pair) for pair in zip(references, predictions, strict=True)]
    return json.dumps({"columns": ["reference", "prediction"], "data": data}, ensure_ascii=False, default=str)
