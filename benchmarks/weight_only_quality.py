"""Weight-only quantisation compared with llm-compressor: perplexity of SmolLM2 at equal bits and groups.

llm-compressor runs in its own virtual environment, since it requires other versions. Both tools quantise the linear
layers except the head, asymmetrically, in groups of 64, from the same float32 weights, and calibrate on the same rows
of tokens. This package scores the weights of both, in float32, on the same reviews.

The weights of this SmolLM2 come from an unpacked Q4_1 file: rounding to nearest in 4 bits loses less than with full
weights. The difference between methods shows at 3 bits.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.children import PROGRAMS, prepare
from benchmarks.finding import Cell, Finding
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.worker import MODEL_FOLDER
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Result, Variant
from mlflow_compress.sockets import Evaluation

_RECIPE, _GROUP = "smollm2_135m", 64
_REQUIREMENTS = ("llmcompressor==0.14.0.1", "transformers==5.17.0", "compressed-tensors==0.19.0")
_BUDGET = Budget(min_iterations=2, min_seconds=0, max_seconds=1, energy_seconds=0, launches=1, timeout_seconds=4 * 3600)
_METHODS = ("nearest", "gptq", "awq")
_TOOL, _PEER = "mlflow-compress", "llm-compressor"
_ALIKE = 1.005  # ratio of perplexities that a few reviews can't distinguish


def find(quick: bool, venv: Path | None = None) -> Finding:
    """Quantise with both tools, and score.

    Args:
        quick: whether to use only few reviews, few rows and one method.
        venv: a virtual environment with llm-compressor; None: create one, which downloads gigabytes.
    """
    limit, count = (2, 2) if quick else (32, 128)
    rows: list[Mapping[str, Cell]] = []
    perplexity: dict[tuple[str, int, str], float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = (venv.absolute() if venv else _installed(folder / "venv")) / "bin" / "python"
        original, tokens = _original(folder, count)
        rows.append(_row("both", "original", 32, _scored(original, "original", limit)))
        for bits in (3,) if quick else (4, 3):
            for method in ("gptq",) if quick else _METHODS:
                quantised = _theirs(python, original, tokens, method, bits)
                results = {_PEER: _scored(quantised, "original", limit)}
                if chain := _ours(method, bits, count):
                    results[_TOOL] = _scored(original, chain, limit)
                for tool, result in results.items():
                    perplexity[method, bits, tool] = result.measurements["quality/perplexity"]
                    rows.append(_row(tool, method, bits, result))
    verdicts = {
        f"{method}, {bits} bits": value <= _ALIKE * perplexity[method, bits, _PEER]
        for (method, bits, tool), value in perplexity.items()
        if tool == _TOOL
    }
    return Finding(
        name="weight_only_quality",
        goal="at equal bits, perplexity is at most half a percent higher than llm-compressor's.",
        met=None if quick else all(verdicts.values()),
        rows=rows,
        notes=[
            f"{', '.join(_REQUIREMENTS)}; {count} rows of 128 tokens for calibration; {limit} reviews scored",
            "nearest: each weight is rounded to the nearest value of its group, without data, the same in both tools",
            *(f"{'met' if is_met else 'NOT met'}: {goal}" for goal, is_met in verdicts.items()),
        ],
    )


def _installed(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *_REQUIREMENTS], check=True)
    return folder


def _original(folder: Path, count: int) -> tuple[Path, Path]:
    """Save the original as a transformers folder, and the rows of tokens that this package calibrates on."""
    from mlflow_compress.networks import model_folder

    variant = _variant("original", limit=1)
    prepare(variant, folder)
    restored = model_folder.restore(folder / MODEL_FOLDER)
    family, model = restored.family, restored.model
    assert variant.data is not None
    model.evaluation = Evaluation(variant.data, Path(variant.folder), None, 0)
    batches = family.calibration(model, count, 0)
    assert not model.cautions, "calibration did not use the data"
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps([row.tolist() for batch in batches for row in batch]))
    return folder / MODEL_FOLDER, tokens


def _theirs(python: Path, original: Path, tokens: Path, method: str, bits: int) -> Path:
    quantised = original.with_name(f"{method}{bits}")
    program = PROGRAMS / "llm_compressor_weights.py"
    command = list(map(str, (python, program, original, tokens, method, bits, _GROUP, quantised)))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=original.parent)
    return quantised


def _ours(method: str, bits: int, samples: int) -> str:
    """Return the equivalent chain; empty if there is none."""
    if method == "nearest":
        return f"int4_weight_only:group_size={_GROUP}" if bits == 4 else ""
    return f"{method}:bits={bits},group_size={_GROUP},samples={samples}"


def _variant(method: str, limit: int) -> Variant:
    settings = recipe.Settings(weights="pretrained", limit=limit, budget=_BUDGET, interleave=False)
    [variant] = recipe.plan(recipe.read(_RECIPE), [(method, chains.parse_chain(method))], settings)
    return variant


def _scored(source: Path, method: str, limit: int) -> Result:
    """Compress the model in a folder, save, restore and score it.

    Raises:
        RuntimeError: it failed.
    """
    variant = dataclasses.replace(_variant(method, limit), source=str(source))
    with tempfile.TemporaryDirectory() as folder:
        result = isolate.run(variant, Path(folder), lambda event: None)
    if result.status != "ok":
        raise RuntimeError(f"{method} of {source.name}: {result.reason}")
    return result


def _row(tool: str, method: str, bits: int, result: Result) -> Mapping[str, Cell]:
    own = result.measurements
    row: dict[str, Cell] = {"bits": bits, "method": method, "by": tool, "perplexity": own["quality/perplexity"]}
    return row | {f"95 % {end}": own.get(f"quality/perplexity_{end}") for end in ("low", "high")}
