"""Gains of each 4-bit and 8-bit method for language models and Whisper: tokens per second, whole calls, bytes.

Each variant runs through the whole tool, and is timed in turns with its original. As in the goals, torch's own formats
are compared with the bfloat16 original, other runtimes with the float32 original; `bf16` against float32 connects the
two scales. One call is a prompt of 128 tokens and 32 new tokens. The weights are random, with the real architectures:
their values affect quality, which `language_quality` measures, but not the time.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.finding import Cell, Finding, stored_rows
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.prepared_originals import PreparedOriginals
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Result

_NAME = "language_models"
_FLOAT, _HALF = "float32", "bfloat16"
_SPEECH = "whisper_small"
_MODELS = ("smollm2_135m", "mistral")
_TORCH_4_BIT = ("int4_weight_only", "gptq:samples=16", "awq:samples=16")
_OTHER_4_BIT = ("openvino_int4", "onnx_int4", "gguf:type=q4_0")
_OTHERS = ("int8_dynamic", "openvino", "openvino_int8", "onnx", "onnx_int8", "gguf:type=q8_0")
_PLAN = (  # model, precision of the original, methods; of the larger model those with goals
    (_MODELS[0], _FLOAT, ("bf16", *_OTHERS, *_OTHER_4_BIT)),
    (_MODELS[0], _HALF, ("int8_weight_only", *_TORCH_4_BIT)),
    (_MODELS[1], _FLOAT, ("bf16", *_OTHER_4_BIT)),
    (_MODELS[1], _HALF, _TORCH_4_BIT),
    (_SPEECH, _FLOAT, ("openvino_int8", "ctranslate2:type=float32", "ctranslate2:type=int8")),
)
_BUDGET = Budget(min_iterations=6, min_seconds=4, max_seconds=40, energy_seconds=0, launches=3)
_QUICK_BUDGET = Budget(min_iterations=2, min_seconds=0, max_seconds=1, energy_seconds=0, launches=1)
_REACHED = re.compile(r"reached ([\d,]+) of ([\d,]+) weights$")
_HALF_BYTES = 2

_Row = Mapping[str, Cell]
_Rows = dict[tuple[str, str], _Row]  # by model and method


def find(quick: bool, only: str = "") -> Finding:
    """Measure every method against its original.

    Args:
        quick: whether to measure only one model and two methods with few calls.
        only: `MODEL` or `MODEL/METHOD`: measure only these, and keep the stored rows of the others; empty: all.
    """
    chosen_model, _, chosen_method = only.partition("/")
    rows = {(str(row["model"]), str(row["method"])): row for row in stored_rows(_NAME)} if only and not quick else {}
    for model, dtype, all_methods in _PLAN[: 1 if quick else None]:
        methods = [method for method in all_methods if chosen_method in ("", method)][: 2 if quick else None]
        if chosen_model in ("", model) and methods:
            rows |= _measured(model, dtype, methods, quick)
    verdicts = _verdicts(rows)
    return Finding(
        name=_NAME,
        goal="each of those below, on a CPU with AMX or VNNI.",
        met=all(verdict == "met" for verdict in verdicts.values()),
        rows=_in_order(rows),
        notes=[
            "call: the original's time over the variant's, for 128 + 32 tokens; decode: the same for one later token",
            "both ratios are measured in turns; an original's own row is from the last run, which may be another run",
            "tokens/s: in decoding, from the variant's medians",
            "bytes of 16 bit: size of the weights that the method compressed, relative to 2 bytes each (without "
            "embeddings and a head that it does not compress); size: all weights relative to the original's",
            *(f"{verdict}: {goal}" for goal, verdict in verdicts.items()),
        ],
    )


def _in_order(rows: _Rows) -> list[_Row]:
    """Return rows in the order of the plan, whenever they were measured."""
    order = [(model, method) for model, dtype, methods in _PLAN for method in (_original_name(dtype), *methods)]
    return [rows[key] for key in order if key in rows]


def _original_name(dtype: str) -> str:
    return f"original ({dtype})"


def _measured(model: str, dtype: str, methods: Iterable[str], quick: bool) -> _Rows:
    """Measure some methods against one original."""
    with tempfile.TemporaryDirectory() as folder:
        originals = PreparedOriginals(Path(folder))
        original = _run(model, dtype, "original", quick, originals)
        results = {_original_name(dtype): original}
        results |= {method: _run(model, dtype, method, quick, originals) for method in methods}
    return {
        (model, method): {"model": model, "method": method, **_row(result, original), "day": _today()}
        for method, result in results.items()
    }


def _run(model: str, dtype: str, method: str, quick: bool, originals: PreparedOriginals) -> Result:
    """Run a variant like a sweep does."""
    settings = recipe.Settings(
        weights="random",
        data="none",
        options={"dtype": (dtype,)},
        budget=_QUICK_BUDGET if quick else _BUDGET,
        interleave=method != "original",
    )
    [variant] = recipe.plan(recipe.read(model), [(method, chains.parse_chain(method))], settings)
    with tempfile.TemporaryDirectory() as folder:
        return isolate.run(variant, Path(folder), lambda event: None, originals=originals)


def _row(result: Result, original: Result) -> _Row:
    if result.status != "ok":
        return {"instead": f"{result.status}: {result.reason}"}
    return {**_numbers(result, original), "kernel": result.facts.get("kernel.cpu", "")}


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _numbers(result: Result, original: Result) -> dict[str, float]:
    """Return the gains of a variant over its original."""
    own, base = result.measurements, original.measurements
    numbers = {"tokens/s": own["cpu/decode_tokens_per_s"]} if "cpu/decode_tokens_per_s" in own else {}
    numbers |= {"call ms": own["cpu/latency_p50_ms"], "pairs": own.get("cpu/pairs", 0)}
    metric_by_column = {"call": "latency_ratio", "call low": "latency_ratio_high", "call high": "latency_ratio_low"}
    metric_by_column["decode"] = "token_ratio"
    numbers |= {column: 1 / own[f"cpu/{name}"] for column, name in metric_by_column.items() if f"cpu/{name}" in own}
    numbers["size"] = own["size/weights_mib"] / base["size/weights_mib"]
    if match := _REACHED.search(result.facts.get("reached", "")):
        reached, total = (int(number.replace(",", "")) for number in match.groups())
        is_half = original.facts.get("dtype", "") == _HALF
        unreached_bytes = (total - reached) * (_HALF_BYTES if is_half else 2 * _HALF_BYTES)
        numbers["bytes of 16 bit"] = (own["size/weights_mib"] * 2**20 - unreached_bytes) / (reached * _HALF_BYTES)
    return numbers


def _verdicts(rows: _Rows) -> dict[str, str]:
    """Judge the goals: `met`, `NOT met`, or `not shown` if a number is missing."""

    def number(model: str, method: str, column: str) -> float | None:
        cell = rows.get((model, method), {}).get(column)
        return cell if isinstance(cell, float) else None

    verdicts = {}
    for model in _MODELS:
        half = number(model, "bf16", "call")  # how much faster bfloat16 is than float32
        for method in _TORCH_4_BIT:
            decode, call = number(model, method, "decode"), number(model, method, "call")
            share = number(model, method, "bytes of 16 bit")
            verdicts[f"{model}: {method} decodes at least 1.5x as fast as bfloat16"] = _judged(decode, 1.5)
            verdicts[f"{model}: a call of {method} takes at most 0.9x of bfloat16's"] = _judged(call, 1 / 0.9)
            verdicts[f"{model}: {method} takes at most 0.30x of the bytes"] = _judged(share and -share, -0.30)
        for method in _OTHER_4_BIT:
            if not method.startswith("gguf"):
                decode = number(model, method, "decode")
                verdicts[f"{model}: {method} decodes at least 2x as fast as float32"] = _judged(decode, 2)
            call = number(model, method, "call")
            against_half = call / half if call and half else None
            verdicts[f"{model}: a call of {method} takes at most 0.9x of bfloat16's"] = _judged(against_half, 1 / 0.9)
    speech = number(_SPEECH, "ctranslate2:type=int8", "call")
    verdicts[f"{_SPEECH}: ctranslate2 in int8 at least 2.5x faster"] = _judged(speech, 2.5)
    return verdicts


def _judged(number: float | None, least: float) -> str:
    if number is None:
        return "not shown"
    return "met" if number >= least else f"NOT met ({abs(number):.3g}, goal {abs(least):.3g})"
