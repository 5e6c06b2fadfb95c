"""Quality loss of a language model with real weights at 4 and 8 bits: perplexity of SmolLM2 on 64 film reviews.

Each variant runs through the whole tool: it is compressed, saved, restored, and scored with its 95 % interval. The
weights of this SmolLM2 come from an unpacked Q4_1 file, so the original has already lost quality, and losses at 4 bits
say little about full weights. Methods that fit weights to data calibrate on other reviews.

A sweep of the recipe measures the same: with `--experiment`, variants that it scored already are not scored again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring import isolate
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Result, Selection
from mlflow_compress.tracking import query

_RECIPE, _NEAREST = "smollm2_135m", "int4_weight_only:group_size=64"
_FITTED = ("gptq:group_size=64", "awq:group_size=64")
_EIGHT_BIT = ("int8_weight_only", "int8_dynamic", "openvino_int8", "onnx_int8", "gguf:type=q8_0")
_METHODS = (
    "bf16", *_EIGHT_BIT, _NEAREST, *_FITTED, "openvino_int4", "onnx_int4", "gguf:type=q4_0", "gguf:type=q4_k_m",
)  # fmt: skip
_BUDGET = Budget(min_iterations=2, min_seconds=0, max_seconds=1, energy_seconds=0, launches=1)
_MOST_LOSS = 1.03  # times the original's perplexity, at 8 bits
_REVIEWS = 64


def find(quick: bool, experiment: str = "") -> Finding:
    """Score every method's model.

    Args:
        quick: whether to score only the original and one method, on few reviews.
        experiment: an experiment whose scores are used, in MLFLOW_TRACKING_URI; empty: none.

    Raises:
        RuntimeError: the original, which all are compared with, could not be scored.
    """
    rows: list[Mapping[str, Cell]] = []
    scores = _logged(experiment) if experiment else {}
    notes = [f"{len(scores)} variants were scored earlier, by a sweep"] if scores else []
    for method in ("original", *(_METHODS[:1] if quick else _METHODS)):
        if method not in scores:
            result = _scored(method, 4 if quick else _REVIEWS)
            if result.status != "ok":
                if method == "original":
                    raise RuntimeError(f"the original was not scored: {result.status}: {result.reason}")
                rows.append({"method": method, "instead": f"{result.status}: {result.reason}"})
                continue
            scores[method] = result.measurements
        rows.append(_row(method, scores[method], scores["original"]))
    verdicts = _verdicts({method: numbers["quality/perplexity"] for method, numbers in scores.items()})
    return Finding(
        name="language_quality",
        goal="at 8 bits at most 3 % more perplexity than the original; gptq and awq better than round-to-nearest.",
        met=None if quick else all(verdicts.values()),
        rows=rows,
        notes=[
            "perplexity by token (protocol lm_eval), with its 95 % interval over reviews",
            *notes,
            *(f"{'met' if is_met else 'NOT met'}: {goal}" for goal, is_met in verdicts.items()),
        ],
    )


def _logged(experiment: str) -> dict[str, Mapping[str, float]]:
    """Return the numbers of each method that an experiment scored on all reviews."""
    runs = query.find((experiment,), Selection(models=(_RECIPE,))).runs
    return {run.tags["method"]: run.metrics for run in reversed(runs) if run.metrics.get("quality/samples") == _REVIEWS}


def _scored(method: str, limit: int) -> Result:
    """Compress, save, restore and score a variant."""
    settings = recipe.Settings(weights="pretrained", limit=limit, budget=_BUDGET, interleave=False)
    [variant] = recipe.plan(recipe.read(_RECIPE), [(method, chains.parse_chain(method))], settings)
    with tempfile.TemporaryDirectory() as folder:
        return isolate.run(variant, Path(folder), lambda event: None)


def _row(method: str, own: Mapping[str, float], original: Mapping[str, float]) -> Mapping[str, Cell]:
    row: dict[str, Cell] = {"method": method, "perplexity": own["quality/perplexity"]}
    row |= {f"95 % {end}": own.get(f"quality/perplexity_{end}") for end in ("low", "high")}
    row["of the original's"] = own["quality/perplexity"] / original["quality/perplexity"]
    return {**row, "weights MiB": own["size/weights_mib"], "reviews": own.get("quality/samples")}


def _verdicts(perplexity: Mapping[str, float]) -> dict[str, bool]:
    """Judge the goals by the perplexities; a goal without its number is not met."""
    missing = float("inf")
    limit = _MOST_LOSS * perplexity.get("original", 0)
    verdicts = {f"{method} within 3 %": perplexity.get(method, missing) <= limit for method in _EIGHT_BIT}
    nearest = perplexity.get(_NEAREST, 0)
    return verdicts | {
        f"{method} better than {_NEAREST}": perplexity.get(method, missing) < nearest for method in _FITTED
    }
