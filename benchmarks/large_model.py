"""A model of 7 billion parameters from end to end: memory of each process, wall time, disk.

Mistral 7B with its real architecture and random weights in bfloat16: the original, and its linear layers in 4 bits.
Each variant runs through the whole tool, in the tool's own processes. The kernel's high-water mark (VmHWM) of each
process is read from outside while it runs; the worker resets it after each phase, so the highest value counts.

The baseline is the memory of the same process with a model of one thin layer: libraries, and almost no weights.
`prepare` starts with the original's weights, whatever the method; `measure` holds the saved weights.

The benchmark is about memory. On a CPU that emulates bfloat16, times do not represent a deployment, so a call is short:
a prompt of 16 tokens and 4 new tokens. Random weights have no quality to score.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.finding import Cell, Finding, stored_rows
from mlflow_compress.measuring.worker import MODEL_FOLDER, VARIANT
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Budget, Part, Variant, write_json

_NAME = "large_model"
_LARGE, _SMALL = "mistral_7b", "mistral"
_MOST = 1.15  # times the weights' bytes, above the baseline
_PAUSE_SECONDS = 0.02
_METHODS = ("original", "int4_weight_only")
_CALL = {"prompt_tokens": [16], "new_tokens": [4], "calibration_tokens": [16]}
_BUDGET = Budget(
    min_iterations=2,
    fewest_iterations=2,
    min_seconds=0,
    max_seconds=60,
    energy_seconds=0,
    launches=1,
    timeout_seconds=4 * 3600,
)
_THIN = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 512}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Ran:
    """Result of a process: its part, its highest resident memory in MiB, and its duration in seconds."""

    part: Part
    peak_mib: float
    seconds: float


def find(quick: bool, only: str = "") -> Finding:
    """Measure the original and its 4-bit variant, in the tool's processes.

    Args:
        quick: whether to measure the small `mistral` instead.
        only: `original` or `int4_weight_only`: measure only this, and keep the stored rows of the other; empty: both.
    """
    name = _SMALL if quick else _LARGE
    stored = stored_rows(_NAME) if only and not quick else []
    rows = {(str(row["variant"]), str(row["process"])): row for row in stored}
    for method in (only,) if only else _METHODS:
        variant = _variant(name, method)
        with tempfile.TemporaryDirectory() as folder:
            baseline = {verb: ran.peak_mib for verb, ran in _both(_thin(variant), Path(folder)).items()}
        with tempfile.TemporaryDirectory() as folder:
            ran = _both(variant, Path(folder))
            files = len(list(Path(folder, MODEL_FOLDER).glob("*.safetensors")))
        saved_mib = ran["measure"].part.measurements["size/weights_mib"]
        original_mib = saved_mib if method == "original" else _number(rows["original", "measure"]["weights"])
        for verb, process in ran.items():
            weights_mib = original_mib if verb == "prepare" else saved_mib
            row = _row(name, method, verb, process, baseline[verb], weights_mib, files, ran["prepare"].part)
            rows[method, verb] = row
    return Finding(
        name=_NAME,
        goal=f"no process holds more than {_MOST} times the weights' bytes above its baseline.",
        met=all(_number(row["ratio"]) <= _MOST for row in rows.values()),
        rows=[rows[method, verb] for method in _METHODS for verb in ("prepare", "measure")],
        notes=[
            "weights: for `prepare` the original's, for `measure` the saved weights; all in MiB",
            "baseline: the highest resident memory of the same process with a model of one thin layer",
            "ratio: the process's memory above its baseline, divided by the weights",
            "a CPU that emulates bfloat16 takes seconds per token: do not compare the time of `measure`",
        ],
    )


def _number(cell: Cell) -> float:
    return float(str(cell).replace(",", ""))


def _variant(name: str, method: str) -> Variant:
    settings = recipe.Settings(weights="random", data="none", options=_CALL, budget=_BUDGET)
    [variant] = recipe.plan(recipe.read(name), [(method, chains.parse_chain(method))], settings)
    return variant


def _thin(variant: Variant) -> Variant:
    """Return the same variant of a model with almost no weights."""
    options: dict[str, Any] = dict(variant.options)
    options["architecture"] = {**options["architecture"], **_THIN}
    return dataclasses.replace(variant, options=options)


def _both(variant: Variant, folder: Path) -> dict[str, _Ran]:
    write_json(folder / VARIANT, variant)
    return {"prepare": _work("prepare", variant, folder), "measure": _work("measure", variant, folder, "cpu")}


def _work(verb: str, variant: Variant, folder: Path, device: str = "") -> _Ran:
    """Run a verb of the worker, and watch its memory.

    Raises:
        RuntimeError: it failed.
    """
    started, highest = time.monotonic(), 0.0
    with Worker(verb, variant, folder, device) as worker, _Watch(worker.pid) as watch:
        for _ in worker.events():
            pass
        part = worker.part()
        highest = watch.highest_mib
    if part.outcome.status != "ok":
        raise RuntimeError(f"{verb} of {variant.model}, {variant.method}: {part.outcome.reason}")
    return _Ran(part, highest, time.monotonic() - started)


class _Watch:
    """Watches the highest resident memory of a process from outside."""

    def __init__(self, pid: int) -> None:
        import threading

        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.highest_mib = 0.0

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS):
            try:
                status = self._status.read_text(encoding="ascii", errors="replace")
            except OSError:
                return
            _, key, value = status.partition("VmHWM:")
            if key:
                self.highest_mib = max(self.highest_mib, int(value.split()[0]) / 1024)


def _row(
    name: str, method: str, verb: str, ran: _Ran, baseline: float, weights: float, files: int, prepared: Part
) -> dict[str, Cell]:
    return {
        "model": name,
        "variant": method,
        "process": verb,
        "weights": f"{weights:,.0f}",
        "peak": f"{ran.peak_mib:,.0f}",
        "baseline": f"{baseline:,.0f}",
        "ratio": f"{(ran.peak_mib - baseline) / weights:.3f}",
        "seconds": f"{ran.seconds:,.0f}",
        "on disk": f"{prepared.measurements['size/disk_mib']:,.0f} in {files} files",
        "day": time.strftime("%Y-%m-%d"),
    }
