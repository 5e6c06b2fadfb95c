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
from benchmarks.finding import Cell, Finding, stored_rows
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.worker import MODEL_FOLDER
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Result, Variant
from mlflow_compress.sockets import Evaluation

_NAME = "weight_only_quality"
_RECIPE, _GROUP = "smollm2_135m", 64
_REQUIREMENTS = ("llmcompressor==0.14.0.1", "transformers==5.17.0", "compressed-tensors==0.19.0")
_BUDGET = Budget(min_iterations=2, min_seconds=0, max_seconds=1, energy_seconds=0, launches=1, timeout_seconds=4 * 3600)
_PLAN = (("gptq", 3), ("nearest", 4), ("gptq", 4), ("awq", 4), ("nearest", 3), ("awq", 3))  # method and bits
_TOOL, _PEER = "mlflow-compress", "llm-compressor"
_ORIGINAL = ("both", "original", 32)
_REVIEWS, _CALIBRATED = 32, 32  # llm-compressor's awq calls each block 20 times on all calibration data
_ALIKE = 1.005  # ratio of perplexities that a few reviews can't distinguish


def find(quick: bool, venv: Path | None = None, only: str = "") -> Finding:
    """Quantise with both tools, and score.

    Args:
        quick: whether to use only few reviews, few rows and one method.
        venv: a virtual environment with llm-compressor; None: create one, which downloads gigabytes.
        only: `METHOD/BITS` or `METHOD/BITS/TOOL`, such as `gptq/4`: measure only this, and keep the stored rows of the
            others; empty: all.
    """
    limit, count = (2, 2) if quick else (_REVIEWS, _CALIBRATED)
    stored = stored_rows(_NAME) if only and not quick else []
    rows = {(str(row["by"]), str(row["method"]), int(str(row["bits"]))): row for row in stored}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = (venv.absolute() if venv else _installed(folder / "venv")) / "bin" / "python"
        original, tokens = _original(folder, count)
        if _ORIGINAL not in rows:
            rows[_ORIGINAL] = _row(*_ORIGINAL, _scored(original, "original", limit))
        for method, bits in _PLAN[:1] if quick else _PLAN:
            place = f"{method}/{bits}"
            if only in ("", place, f"{place}/{_PEER}"):
                quantised = _theirs(python, original, tokens, method, bits)
                rows[_PEER, method, bits] = _row(_PEER, method, bits, _scored(quantised, "original", limit))
            if only in ("", place, f"{place}/{_TOOL}") and (chain := _ours(method, bits, count)):
                rows[_TOOL, method, bits] = _row(_TOOL, method, bits, _scored(original, chain, limit))
    verdicts = _verdicts(rows)
    places = [_ORIGINAL, *((tool, *planned) for planned in _PLAN for tool in (_PEER, _TOOL))]
    return Finding(
        name=_NAME,
        goal="at equal bits, perplexity is at most half a percent higher than llm-compressor's.",
        met=None if quick else all(verdict == "met" for verdict in verdicts.values()),
        rows=[rows[place] for place in places if place in rows],
        notes=[
            f"{', '.join(_REQUIREMENTS)}; {count} rows of 128 tokens for calibration; {limit} reviews scored",
            "nearest: each weight is rounded to the nearest value of its group, without data, the same in both tools",
            *(f"{verdict}: {goal}" for goal, verdict in verdicts.items()),
        ],
    )


def _verdicts(rows: Mapping[tuple[str, str, int], Mapping[str, Cell]]) -> dict[str, str]:
    """Judge each goal by the rows; a goal without its rows is not shown."""
    verdicts = {}
    for method, bits in _PLAN:
        own, peers = (rows.get((tool, method, bits)) for tool in (_TOOL, _PEER))
        if own and peers:
            is_met = float(str(own["perplexity"])) <= _ALIKE * float(str(peers["perplexity"]))
            verdicts[f"{method}, {bits} bits"] = "met" if is_met else "NOT met"
        elif _ours(method, bits, 1):
            verdicts[f"{method}, {bits} bits"] = "not shown"
    return verdicts


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
