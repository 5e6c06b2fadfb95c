"""Gains of each 4-bit and 8-bit method for language models and Whisper: tokens per second, whole calls, bytes.

Each variant runs through the whole tool, and is timed in turns with its original. As in the goals, torch's own formats
are compared with the bfloat16 original, other runtimes with the float32 original; `bf16` against float32 connects the
two scales. One call is a prompt of 128 tokens and 32 new tokens. The weights are random, with the real architectures:
their values affect quality, which `language_quality` measures, but not the time.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.prepared_originals import PreparedOriginals
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Result

_FLOAT, _HALF = "float32", "bfloat16"
_METHODS: Mapping[str, tuple[str, ...]] = {  # by the original's precision
    _FLOAT: ("bf16", "int8_dynamic", "openvino", "openvino_int8", "openvino_int4", "onnx", "onnx_int8", "onnx_int4",
             "gguf:type=q8_0", "gguf:type=q4_0"),
    _HALF: ("int8_weight_only", "int4_weight_only", "gptq:samples=16", "awq:samples=16"),
}  # fmt: skip
_SPEECH = "whisper_small"
_WHISPER = ("openvino_int8", "ctranslate2:type=float32", "ctranslate2:type=int8")
_MODELS = ("smollm2_135m", "mistral")
_TORCH_4_BIT = ("int4_weight_only", "gptq:samples=16", "awq:samples=16")
_OTHER_4_BIT = ("openvino_int4", "onnx_int4", "gguf:type=q4_0")
_BUDGET = Budget(min_iterations=6, min_seconds=4, max_seconds=40, energy_seconds=0, launches=3)
_QUICK_BUDGET = Budget(min_iterations=2, min_seconds=0, max_seconds=1, energy_seconds=0, launches=1)
_REACHED = re.compile(r"reached ([\d,]+) of ([\d,]+) weights$")
_HALF_BYTES = 2

_Numbers = dict[str, float]
_Rows = dict[tuple[str, str], _Numbers]


def find(quick: bool, only: str = "") -> Finding:
    """Measure every method against its original.

    Args:
        quick: whether to measure only one model and two methods with few calls.
        only: recipe of the only model to measure; empty: all.
    """
    rows: list[Mapping[str, Cell]] = []
    numbers: _Rows = {}
    models = tuple(model for model in _MODELS if only in ("", model))
    plan = [(model, dtype) for model in models for dtype in (_FLOAT, _HALF)][: 1 if quick else None]
    for model, dtype in plan:
        rows += _measured(model, dtype, _METHODS[dtype][: 2 if quick else None], quick, numbers)
    if not quick and only in ("", _SPEECH):
        rows += _measured(_SPEECH, _FLOAT, _WHISPER, quick, numbers)
    verdicts = {goal: verdict for goal, verdict in _verdicts(numbers).items() if only in goal}
    return Finding(
        name="language_models",
        goal="each of those below, on a CPU with AMX or VNNI.",
        met=all(verdict == "met" for verdict in verdicts.values()),
        rows=rows,
        notes=[
            "call: the original's time over the variant's, for 128 + 32 tokens; decode: the same for one later token",
            "tokens/s: in decoding, from the variant's medians",
            "bytes of 16 bit: size of the weights that the method compressed, relative to 2 bytes each (without "
            "embeddings and a head that it does not compress); size: all weights relative to the original's",
            *(f"{verdict}: {goal}" for goal, verdict in verdicts.items()),
        ],
    )


def _measured(
    model: str, dtype: str, methods: tuple[str, ...], quick: bool, numbers: _Rows
) -> list[Mapping[str, Cell]]:
    """Measure some methods against one original, and add their numbers by model and method."""
    rows: list[Mapping[str, Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        originals = PreparedOriginals(Path(folder))
        original = _run(model, dtype, "original", quick, originals)
        rows.append(_row(model, f"original ({dtype})", original, original))
        for method in methods:
            result = _run(model, dtype, method, quick, originals)
            rows.append(_row(model, method, result, original))
            if result.status == "ok":
                numbers[model, method] = _numbers(result, original)
    return rows


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


def _row(model: str, method: str, result: Result, original: Result) -> Mapping[str, Cell]:
    if result.status != "ok":
        return {"model": model, "method": method, "instead": f"{result.status}: {result.reason}"}
    return {
        "model": model,
        "method": method,
        **_numbers(result, original),
        "kernel": result.facts.get("kernel.cpu", ""),
    }


def _numbers(result: Result, original: Result) -> _Numbers:
    """Return the gains of a variant over its original."""
    own, base = result.measurements, original.measurements
    numbers = {"tokens/s": own["cpu/decode_tokens_per_s"]} if "cpu/decode_tokens_per_s" in own else {}
    numbers |= {"call ms": own["cpu/latency_p50_ms"], "pairs": own.get("cpu/pairs", 0)}
    shown = {"call": "latency_ratio", "call low": "latency_ratio_high", "call high": "latency_ratio_low"}
    shown["decode"] = "token_ratio"
    numbers |= {column: 1 / own[f"cpu/{name}"] for column, name in shown.items() if f"cpu/{name}" in own}
    numbers["size"] = own["size/weights_mib"] / base["size/weights_mib"]
    if match := _REACHED.search(result.facts.get("reached", "")):
        reached, total = (int(number.replace(",", "")) for number in match.groups())
        is_half = original.facts.get("dtype", "") == _HALF
        rest = (total - reached) * (_HALF_BYTES if is_half else 2 * _HALF_BYTES)
        numbers["bytes of 16 bit"] = (own["size/weights_mib"] * 2**20 - rest) / (reached * _HALF_BYTES)
    return numbers


def _verdicts(numbers: _Rows) -> dict[str, str]:
    """Judge the goals: `met`, `NOT met`, or `not shown` if a row is missing."""
    verdicts = {}
    for model in _MODELS:
        half = numbers.get((model, "bf16"), {}).get("call")  # how much faster bfloat16 is than float32
        for method in _TORCH_4_BIT:
            row = numbers.get((model, method), {})
            verdicts[f"{model}: {method} decodes at least 1.5x as fast as bfloat16"] = _judged(row.get("decode"), 1.5)
            verdicts[f"{model}: a call of {method} takes at most 0.9x of bfloat16's"] = _judged(
                row.get("call"), 1 / 0.9
            )
            bytes_ = row.get("bytes of 16 bit")
            verdicts[f"{model}: {method} takes at most 0.30x of the bytes"] = _judged(bytes_ and -bytes_, -0.30)
        for method in _OTHER_4_BIT:
            row = numbers.get((model, method), {})
            if not method.startswith("gguf"):
                verdicts[f"{model}: {method} decodes at least 2x as fast as float32"] = _judged(row.get("decode"), 2)
            both = row["call"] / half if half and "call" in row else None
            verdicts[f"{model}: a call of {method} takes at most 0.9x of bfloat16's"] = _judged(both, 1 / 0.9)
    whisper = numbers.get((_SPEECH, "ctranslate2:type=int8"), {})
    verdicts[f"{_SPEECH}: ctranslate2 in int8 at least 2.5x faster"] = _judged(whisper.get("call"), 2.5)
    return verdicts


def _judged(number: float | None, least: float) -> str:
    if number is None:
        return "not shown"
    return "met" if number >= least else f"NOT met ({abs(number):.3g}, goal {abs(least):.3g})"
