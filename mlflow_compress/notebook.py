"""Functions for notebooks: `benchmark` and `compress` for a model in memory, `compare` for logged results.

All three are available from `import mlflow_compress as mc`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlflow_compress.errors import RecipeError, StoreError, UnknownName, Unsupported, WorkerError
from mlflow_compress.plain_text import plain
from mlflow_compress.records import (
    Budget,
    Caution,
    CautionKind,
    Outcome,
    Part,
    Result,
    Selection,
    Step,
    Variant,
    metric_group,
)
from mlflow_compress.sockets import Family, Mark, Model
from mlflow_compress.torch_devices import CPU, LABELS
from mlflow_compress.words import ORIGINAL

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

# In the digest of `timed_work.describe`: with other words, old runs would not be compared with new ones.
_TIMED = "one call of the model in the process of a notebook, on the batch that was given"
NOTEBOOK = CautionKind(
    "notebook",
    short={"en": "measured in a notebook", "ru": "измерено в блокноте"},
    message={
        "en": "measured in a notebook, whose process has other data, too: the memory is not only the model's",
        "ru": "измерено в блокноте, в процессе которого есть и другие данные: память занята не только моделью",
    },
    advice={
        "en": "Before you trust the memory, measure with compress-bench run: it gives each model its own process.",
        "ru": "Прежде чем доверять памяти, измерьте командой compress-bench run: у неё для каждой модели свой процесс.",
    },
)
_FAMILY = "in_memory"


def benchmark(
    model: Callable[..., Any],
    batch: Any,
    *,
    team: str | None = None,
    method: str = ORIGINAL,
    name: str | None = None,
    seconds: float = 3.0,
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto",
    log: bool = True,
) -> Result:
    """Measure a model in memory, in this process: size, latency, and the peak memory of the process.

    The timing is the same as in `compress-bench run`, but in your process: its other data and work affect the numbers,
    and a caution says so. A model that was not saved can't be measured in a separate process. So nothing is compressed,
    saved or restored here; quality, energy and the size on disk are not measured; and errors of the model are raised,
    not turned into a failed result.

    Args:
        model: A torch module, or any callable.
        batch: The input of one call: a tuple or list of arguments, a mapping of keyword arguments if the model has such
            parameters, or else its only argument. The length of its first tensor is the batch size.
        team: Team of the row; None: COMPRESS_TEAM, or `none`.
        method: How the model was compressed, for the name of the row. It is compared with `original`.
        name: Name of the model in tables; None: the name of its class.
        seconds: Minimum seconds of timed calls; the maximum is 20 times as long.
        device: Device of the model; `auto`: that of its parameters, or the CPU. Nothing is moved.
        log: Whether to log to MLflow: to the active run, or to a new one.

    Returns:
        The result, with all samples. A notebook displays it as a small table.

    Raises:
        RecipeError: The module is not on the named device.
        WorkerError: This machine has no such device.
        StoreError: MLflow does not accept the result.
        Exception: Any error of the model.
    """
    from mlflow_compress.reporting import notebook_views

    torch_device = _device(model, device)
    variant = Variant(
        model=name or _name(model),
        method=method,
        chain=() if method == ORIGINAL else (Step(method),),  # only the caller knows how it was compressed
        team=team or os.environ.get("COMPRESS_TEAM") or "none",
        family=_FAMILY,
        source="notebook",
        weights="local",
        devices=(torch_device,),
        batch_size=_batch_size(batch),
        budget=Budget(min_seconds=seconds, max_seconds=max(20 * seconds, 1.0), energy_seconds=0),
    )
    result = _measured(model, batch, variant, torch_device)
    if log:
        _log(result)
    return notebook_views.ShownResult.of(result)


def compare(
    experiment: str | Sequence[str],
    *,
    team: str | Sequence[str] = (),
    model: str | Sequence[str] = (),
    method: str | Sequence[str] = (),
    device: Literal["", "cpu", "gpu", "cuda", "mps", "xpu"] = "",
    tracking_uri: str | None = None,
    every_run: bool = False,
    lang: Literal["en", "ru"] = "en",
    baseline: str | Sequence[str] = (),
) -> pd.DataFrame:
    """Return the comparison of experiments as a data frame, with the rows of `compress-report`'s table.

    Args:
        experiment: Name or pattern (`hw*`) of an experiment, or several.
        team: Only these teams; empty: all.
        model: Only these models; empty: all.
        method: Only these methods; empty: all.
        device: Only results measured on it; `gpu`: on any accelerator; empty: all.
        tracking_uri: The tracking store; None: MLflow's own choice in this process.
        every_run: Whether to include every run, not only the newest of each variant.
        lang: Language of the displayed table.
        baseline: Model or run to compare rows with instead of their own model's original, see `compress-report
            --baseline`; or several.

    Returns:
        Columns `team`, `model`, `method`, `hardware`, then all metrics by name, then `ratio/<metric>`: the value
        divided by the original's. Missing numbers are NaN. A notebook displays it as the table of `compress-report`.

    Raises:
        StoreError: There is no such experiment or baseline, or the store can't be read.
    """
    from mlflow_compress.reporting import baselines, compare, notebook_views
    from mlflow_compress.reporting.table_lines import on_accelerator
    from mlflow_compress.reporting.table_text import ordered
    from mlflow_compress.tracking import query
    from mlflow_compress.tracking.connection import chosen_uri

    group = metric_group(device) if device else ""
    selection = Selection(_several(team), _several(model), _several(method), group)
    selected = query.find(_several(experiment), selection, [tracking_uri or chosen_uri()], baselines=_several(baseline))
    comparison = compare.compare(
        on_accelerator(selected.runs, device),
        originals=on_accelerator(selected.originals, device),
        devices=_several(group),
        every_run=every_run,
        language=lang,
        baselines=selected.baselines,
    )
    for sentence in baselines.idle(selected.baselines, comparison.rows):
        warnings.warn(plain(sentence), stacklevel=2)
    rows = comparison.rows
    metrics = ordered({name for row in rows for name in row.values})
    ratios = [name for name in metrics if any(name in row.ratios for row in rows)]
    lines = [
        {
            "team": row.team,
            "model": row.model,
            "method": row.method,
            "hardware": row.hardware,
            **{name: row.values.get(name, float("nan")) for name in metrics},
            **{f"ratio/{name}": row.ratios.get(name, float("nan")) for name in ratios},
        }
        for row in rows
    ]
    columns = ["team", "model", "method", "hardware", *metrics, *(f"ratio/{name}" for name in ratios)]
    return notebook_views.shown_frame(lines, columns, comparison)


def compress(model: nn.Module, method: str, *, copy: bool = True) -> nn.Module:
    """Compress a torch module in memory.

    Args:
        model: The module, in float32. It is put into eval mode.
        method: A chain as on the command line: `prune_magnitude:amount=0.5+int8_dynamic`.
        copy: Whether to keep the given module unchanged, which needs memory for both.

    Returns:
        The compressed module. Cautions are raised as warnings.

    Raises:
        Unsupported: A method needs data, another runtime or a library, or does not apply. `compress-bench run` supports
            the first two.
        UnknownName, RecipeError: There is no such method or option.
    """
    from mlflow_compress.compression import coverage
    from mlflow_compress.measuring import compression_check
    from mlflow_compress.networks import model_folder
    from mlflow_compress.planning import chains

    chain = chains.parse_chain(method)
    methods = model_folder.methods_of(chain)
    for plugin in methods:
        if plugin.changes == "runtime":
            raise Unsupported(_elsewhere(method, "makes a model for another runtime, not a torch module"))
    compressed = Model((_copied(model) if copy else model).eval(), weights="local", device=_device(model, "auto"))
    family, state_before = _InMemory(method), compression_check.State.of(compressed)
    state = state_before
    untrue: list[Caution] = []
    for step, plugin in zip(chain, methods, strict=True):
        untrue += coverage.outdated(compressed.cautions, plugin)
        compressed = plugin.compress(compressed, family)
        if plugin.changes != "nothing":
            state = compression_check.require_change(state, compressed, str(step))
    if state is not state_before:
        removes = any(plugin.changes == "architecture" for plugin in methods)
        compressed.cautions += compression_check.cautions(state_before, state, removes)
    for caution in coverage.without(compressed.cautions, untrue):
        warnings.warn(plain(f"{caution.message}. {caution.advice}"), stacklevel=2)
    module: nn.Module = compressed.module
    return module


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy. Weights that hooks computed with gradients are detached first: they can't be copied."""
    from copy import deepcopy

    import torch

    for layer in module.modules():
        for name, value in list(vars(layer).items()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                setattr(layer, name, value.detach())
    return deepcopy(module)


def _elsewhere(method: str, why: str) -> str:
    return f"{method} {why}: write a recipe for the model and use compress-bench run --method {method}"


class _InMemory(Family):
    """The family of a module about which nothing else is known: methods that need more don't apply."""

    timed = _TIMED

    def __init__(self, method: str) -> None:
        self._method = method

    def _lacks(self) -> Unsupported:
        return Unsupported(_elsewhere(self._method, "needs inputs or knowledge of the model's family"))

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        raise self._lacks()

    def batch(self, model: Model, size: int, seed: int) -> Any:
        raise self._lacks()

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        raise self._lacks()

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        raise self._lacks()

    def student(self, model: Model, keep: float) -> Model:
        raise self._lacks()

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        raise self._lacks()

    def save(self, model: Model, folder: Path) -> None:
        raise self._lacks()

    def restore(self, folder: Path) -> Model:
        raise self._lacks()


def _measured(model: Callable[..., Any], batch: Any, variant: Variant, device: str) -> Result:
    """Measure the model while no other measurement runs on this machine, and return a result like that of workers."""
    from mlflow_compress.measuring import checks, machine_lock, timed_work
    from mlflow_compress.measuring.combine import combine
    from mlflow_compress.meters import environment, size

    started = time.time()
    with (
        machine_lock.alone(lambda text: warnings.warn(plain(text), stacklevel=5)),
        _evaluating(model),
        _allowed_threads(),
    ):
        cautions = [NOTEBOOK.of(), *checks.busy(environment.busy_share())]
        timed = _timed(_call(model, batch), variant, device)
    if hasattr(model, "parameters"):  # the engine of other callables is unknown
        timed = dataclasses.replace(timed, environment={**timed.environment, "runtime": environment.runtime("torch")})
    loaded = Part(
        Outcome("ok"),
        measurements=size.in_memory(model) if hasattr(model, "parameters") else {},
        cautions=tuple(cautions),
        facts={
            "weights": "local",
            "timed": _TIMED,
            "family": _FAMILY,
            "work": timed_work.describe(_TIMED, {}, batch),
        },
    )
    return combine(variant, {"prepare": loaded, device: timed}, started)


def _timed(call: Callable[[], Any], variant: Variant, device: str) -> Part:
    """Time the call and measure the process's memory, like a worker."""
    from mlflow_compress.measuring.timing import Silent, TimedCall, time_call
    from mlflow_compress.meters import environment, gpu, memory

    surroundings = {"load_before": environment.load_average()}
    if device != CPU:
        gpu.reset(device)
        surroundings |= environment.gpu(device)
    meter = memory.MemoryMeter()
    meter.end_phase("before")
    timed = TimedCall(run=lambda mark: call(), device=device, batch_size=variant.batch_size)
    part = time_call(timed, variant.budget, meter, Silent())
    numbers = dict(part.measurements)
    del numbers[f"{timed.group}/ram_model_mib"]  # the model was there before
    del numbers[f"{timed.group}/first_call_ms"]  # it may have been called before
    del numbers[f"{timed.group}/ram_peak_around_mib"]  # nothing is timed around the call
    return dataclasses.replace(part, measurements=numbers, environment={**surroundings, **part.environment})


@contextlib.contextmanager
def _allowed_threads() -> Iterator[None]:
    """Limit torch to the threads that can run at once, like in a worker, and restore their number at the end."""
    import torch

    from mlflow_compress.meters import environment

    old_threads = torch.get_num_threads()
    torch.set_num_threads(min(old_threads, environment.most_threads()))
    try:
        yield
    finally:
        torch.set_num_threads(old_threads)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put a module into eval mode, and restore the mode of each part at the end."""
    modules = list(model.modules()) if hasattr(model, "modules") and hasattr(model, "training") else []
    training = [module for module in modules if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _call(model: Callable[..., Any], batch: Any) -> Callable[[], Any]:
    from mlflow_compress.networks import module_calls

    passing = module_calls.passing(batch, model, lambda: batch)
    arguments = module_calls.arguments(batch, passing, model)
    return lambda: module_calls.called(model, arguments)


def _batch_size(batch: Any) -> int:
    """Return the length of the first tensor or array of a batch; 1 if there is none."""
    from mlflow_compress.networks import value_trees

    shapes = [tuple(leaf.shape) for leaf in value_trees.leaves(batch) if hasattr(leaf, "shape")]
    return max(1, int(shapes[0][0])) if shapes and shapes[0] else 1


def _name(model: Any) -> str:
    return getattr(model, "__name__", "") or type(model).__name__


def _device(model: Any, requested: str) -> str:
    """Return the device of a model: `cpu`, `cuda`, `mps` or `xpu`.

    Raises:
        RecipeError: The model is on another device than the requested one.
        WorkerError: This machine has no such device.
    """
    from mlflow_compress.meters import accelerators
    from mlflow_compress.planning import requirements

    if requested not in ("auto", *LABELS):
        raise RecipeError(str(UnknownName("device", requested, ("auto", *LABELS))))
    requirements.require_device(requested)
    if requested not in ("auto", CPU, "cuda") and (lack := accelerators.lack(requested)):
        raise WorkerError(f"device={requested} was requested, but {lack}")
    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    if first is None:
        return "cpu" if requested == "auto" else requested
    device = str(first.device.type)
    if requested not in ("auto", device):
        raise RecipeError(
            f"The module is on {device}, not on {requested}. Move it there first: model.to({requested!r})."
        )
    return device


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(None, (names,))) if isinstance(names, str) else tuple(names)


def _log(result: Result) -> None:
    from mlflow_compress.tracking import experiment_note, reading
    from mlflow_compress.tracking.sending import write_into_open_run
    from mlflow_compress.tracking.writing import fluent_run, run_name

    variant = result.variant
    with fluent_run(run_name(variant.team, variant.model, variant.method)) as (store, run_id):
        write_into_open_run(store, run_id, result)
        with contextlib.suppress(StoreError):  # the result itself is logged
            experiment_id = reading.experiment_of(store, run_id)
            experiment_note.describe(store, experiment_id, reading.experiment_name(store, experiment_id))
