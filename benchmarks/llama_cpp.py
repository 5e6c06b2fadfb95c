"""Tokens per second of a GGUF model through this package, beside llama.cpp alone.

Both decode in one process, in turns, from the same file: see `programs/llama_loop.py`. A call is a prompt of 128 tokens
and 32 new tokens. The weights are random, with the real architectures.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.children import PROGRAMS, measuring_environment, plan, prepare, run
from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring.worker import VARIANT
from mlflow_compress.records import write_json

_MODELS = ("smollm2_135m", "mistral")
_METHOD = "gguf:type=q4_0"
_MOST = 1.1  # times the tokens per second through this package
_ROUNDS = 15


def find(quick: bool) -> Finding:
    """Decode with both, in turns.

    Args:
        quick: whether to use only one model and two rounds.
    """
    rounds = 2 if quick else _ROUNDS
    rows = [_row(model, rounds) for model in _MODELS[: 1 if quick else None]]
    return Finding(
        name="llama_cpp",
        goal=f"llama.cpp alone decodes at most {_MOST} times as many tokens per second (median of the rounds).",
        met=all(float(str(row["ratio"])) <= _MOST for row in rows),
        rows=rows,
        notes=[
            f"{_METHOD}; a prompt of 128 tokens and 32 new tokens, {rounds} rounds; tokens/s: in decoding",
            "alone: what llama-bench does: the same calls of llama.cpp, without reading logits",
        ],
    )


def _row(model: str, rounds: int) -> dict[str, Cell]:
    variant = plan(model, calls=1, method=_METHOD)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(variant, folder)
        write_json(folder / VARIANT, variant)
        command = [sys.executable, PROGRAMS / "llama_loop.py", folder, rounds]
        results = json.loads(run(command, folder, measuring_environment(variant)).output)

    def median(loop: str, number: str) -> float:
        return float(statistics.median(result[loop][number] for result in results))

    ratios = [result["bare"]["tokens_per_s"] / result["package"]["tokens_per_s"] for result in results]
    return {
        "model": model,
        "tokens/s": median("package", "tokens_per_s"),
        "alone": median("bare", "tokens_per_s"),
        "ratio": statistics.median(ratios),
        "prompt ms": median("package", "prompt_ms"),
        "prompt ms alone": median("bare", "prompt_ms"),
    }
