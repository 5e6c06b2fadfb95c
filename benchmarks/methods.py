"""Gains of the methods on this machine: speed, bytes, parameters and accuracy, relative to the original.

Each variant runs through the whole tool, and is timed in turns with its original, like in a sweep, so that a ratio is
based on pairs of processes under the same conditions. Sizes are those of the saved folders. Accuracy is measured for
`digits_cnn`, which is really trained; the other models have random weights.

The goals are for a CPU with AMX or VNNI. Other CPUs have no instructions for int8 and bfloat16; then the table shows
the results of such a machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.prepared_originals import PreparedOriginals
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Result

_STUDENT, _PRUNED, _CLUSTERED = "distill:keep=0.4", "prune_structured:amount=0.6", "cluster:centroids=16"
_METHODS: Mapping[str, tuple[str, ...]] = {
    "distilbert": ("bf16", "int8_dynamic", "int8_weight_only", "onnx", "onnx_int8", "openvino", "openvino_int8"),
    "yolo11l": ("onnx", "openvino", "openvino_int8"),
    "whisper_small": ("int8_dynamic", "openvino_int8"),
    "digits_cnn": ("int8_static", "openvino_int8", "onnx_int8", _STUDENT, _PRUNED, _CLUSTERED),
}
_BUDGET = Budget(min_iterations=20, min_seconds=3, max_seconds=60, energy_seconds=0)
_QUICK_BUDGET = Budget(min_iterations=6, min_seconds=0, max_seconds=1, energy_seconds=0)

_Row = Mapping[str, Cell]


@dataclass(frozen=True)
class _Goal:
    """A goal for one or all of several methods; its conditions must hold for the same row.

    Attributes:
        text: description of the goal.
        model: the model.
        methods: the methods.
        reached: returns whether a row reaches it.
        of_all: whether all methods must reach it, or only one.
        is_about_time: whether it is about speed: then a row with one pair, whose noise is unknown, shows nothing.
    """

    text: str
    model: str
    methods: tuple[str, ...]
    reached: Callable[[Mapping[str, float]], bool]
    of_all: bool = False
    is_about_time: bool = False

    def verdict(self, rows: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
        """Judge by the existing rows: `met`, `NOT met`, or `not shown`."""
        of_methods = [rows.get((self.model, method), {}) for method in self.methods]
        reach = [bool(row) and self.reached(row) for row in of_methods]
        are_shown = [not self.is_about_time or "speed-up low" in row for row in of_methods]
        judge = all if self.of_all else any
        if judge(reached and is_shown for reached, is_shown in zip(reach, are_shown, strict=True)):
            return "met"
        return "not shown" if judge(reach) else "NOT met"


_INT8 = ("int8_dynamic", "int8_static", "onnx_int8", "openvino_int8")
_GOALS = (
    _Goal(
        "distilbert: an int8 method at least 4.5x faster, at most 0.26x of the bytes",
        "distilbert",
        _INT8,
        lambda row: row["speed-up"] >= 4.5 and row["bytes"] <= 0.26,
        is_about_time=True,
    ),
    _Goal(
        "distilbert: bf16 at least 2x faster",
        "distilbert",
        ("bf16",),
        lambda row: row["speed-up"] >= 2,
        is_about_time=True,
    ),
    _Goal(
        "yolo11l: openvino_int8 at least 5x faster, at most 0.26x of the bytes",
        "yolo11l",
        ("openvino_int8",),
        lambda row: row["speed-up"] >= 5 and row["bytes"] <= 0.26,
        is_about_time=True,
    ),
    _Goal(
        "yolo11l: openvino and onnx no slower",
        "yolo11l",
        ("openvino", "onnx"),
        lambda row: row.get("speed-up high", row["speed-up"]) >= 1,
        of_all=True,
        is_about_time=True,
    ),
    _Goal(
        "whisper_small: an int8 method at least 2x faster, at most 0.3x of the bytes",
        "whisper_small",
        _INT8,
        lambda row: row["speed-up"] >= 2 and row["bytes"] <= 0.3,
        is_about_time=True,
    ),
    _Goal(
        "digits_cnn: int8 loses at most 0.5 points",
        "digits_cnn",
        ("int8_static", "onnx_int8", "openvino_int8"),
        lambda row: row["points lost"] <= 0.5,
        of_all=True,
    ),
    _Goal(
        "digits_cnn: distill and prune_structured at least 4x fewer parameters for at most 2 points",
        "digits_cnn",
        (_STUDENT, _PRUNED),
        lambda row: row["parameters"] <= 0.25 and row["points lost"] <= 2,
        of_all=True,
    ),
    _Goal(
        "digits_cnn: cluster with 16 centroids at most 0.16x of the bytes on disk",
        "digits_cnn",
        (_CLUSTERED,),
        lambda row: row["bytes"] <= 0.16,
    ),
)


def find(quick: bool) -> Finding:
    """Measure every method against its original."""
    rows: list[_Row] = []
    numbers: dict[tuple[str, str], dict[str, float]] = {}
    for model, methods in list(_METHODS.items())[-1 if quick else 0 :]:
        with tempfile.TemporaryDirectory() as folder:
            originals = PreparedOriginals(Path(folder))
            original = _measured(model, "original", quick, originals)
            for method in methods:
                result = _measured(model, method, quick, originals)
                row: dict[str, Cell] = {"model": model, "method": method}
                if result.status == "ok":
                    numbers[model, method] = _compared(result.measurements, original.measurements)
                    rows.append({**row, **numbers[model, method]})
                else:
                    rows.append({**row, "instead": f"{result.status}: {result.reason}"})
    judged = {goal.text: goal.verdict(numbers) for goal in _GOALS}
    return Finding(
        name="methods",
        goal="each of those below, on a CPU with AMX or VNNI.",
        met=set(judged.values()) == {"met"},
        rows=rows,
        notes=[
            "bytes, parameters: share of the original's; speed-up: mean over the pairs, with its 95 % interval",
            "a speed-up from one pair of launches has no interval: its noise is unknown",
            *(f"{verdict}: {text}" for text, verdict in judged.items()),
        ],
    )


def _measured(model: str, method: str, quick: bool, originals: PreparedOriginals) -> Result:
    """Run a variant like a sweep does."""
    settings = recipe.Settings(
        weights="auto" if model == "digits_cnn" else "random",
        budget=_QUICK_BUDGET if quick else _BUDGET,
        interleave=method != "original",
    )
    [variant] = recipe.plan(recipe.read(model), [(method, chains.parse_chain(method))], settings)
    with tempfile.TemporaryDirectory() as folder:
        return isolate.run(variant, Path(folder), lambda event: None, originals=originals)


def _compared(own: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
    metric_by_column = {
        "speed-up": "latency_ratio",
        "speed-up low": "latency_ratio_high",
        "speed-up high": "latency_ratio_low",
    }
    numbers = {
        "pairs": own.get("cpu/pairs", 0),
        **{column: 1 / own[f"cpu/{name}"] for column, name in metric_by_column.items() if f"cpu/{name}" in own},
        "bytes": own["size/disk_mib"] / original["size/disk_mib"],
        "parameters": own["size/params"] / original["size/params"],
    }
    if "quality/output_error_rel_l2" in own:
        numbers["output error"] = own["quality/output_error_rel_l2"]
    if "quality/accuracy" in own:
        numbers["points lost"] = 100 * (original["quality/accuracy"] - own["quality/accuracy"])
    return numbers
