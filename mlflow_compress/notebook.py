"""What a notebook calls: `benchmark` and `compress` on a model in memory, `compare` on what was logged.

`import mlflow_compress as mc` gives all three.
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

from mlflow_compress.errors import RecipeError, StoreError, UnknownName, Unsupported
from mlflow_compress.plain_text import plain
from mlflow_compress.records import Budget, CautionKind, Outcome, Part, Result, Selection, Step, Variant
from mlflow_compress.sockets import Family, Mark, Model
from mlflow_compress.words import ORIGINAL

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

_TIMED = "one call of the model in the process of a notebook, on the batch that was given"
NOTEBOOK = CautionKind(
    "notebook",
    short={"en": "measured in a notebook", "ru": "измерено в блокноте"},
    message={
        "en": "measured in a notebook, whose process holds other things too: its memory is not the model's alone",
        "ru": "измерено в блокноте, в процессе которого есть и другое: память принадлежит не только модели",
    },
    advice={
        "en": "Measure with compress-bench run, which gives each model a process of its own, before you trust the "
        "memory.",
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
    device: Literal["auto", "cpu", "cuda"] = "auto",
    log: bool = True,
) -> Result:
    """Measure a model that is in memory, in this process: size, latency, and the peak memory of the process.

    The call is timed and the result is made by what `compress-bench run` uses too, but the process is yours: what else
    it holds and does is in the numbers, and a caution says so. No process of its own can measure a model that was never
    saved: so nothing is compressed, saved and restored here, quality, energy and the size on disk are not measured, and
    what the model raises is yours to see, not a failed result.

    Args:
        model: a torch module, or anything that can be called.
        batch: the input of one call: a tuple or list gives its arguments, a mapping its keyword arguments where the
            model has such parameters, anything else is its only argument. The length of its first tensor is the batch
            size.
        team: whose row it is; None takes COMPRESS_TEAM, or `none`.
        method: how the model was compressed, for the name of the row. It is compared with `original`.
        name: the model's name in tables; None takes the name of its class.
        seconds: seconds of timed calls, at least; 20 times as many at most.
        device: where the model runs; `auto`: where its parameters are, else the CPU. Nothing is moved.
        log: whether to log to MLflow: to the active run, or to a new one.

    Returns:
        The result, with all samples. It shows itself as a small table.

    Raises:
        RecipeError: the module is not on the device that was named.
        WorkerError: this machine has no such device.
        StoreError: MLflow does not take it.
        Exception: whatever the model raises.
    """
    from mlflow_compress.reporting import notebook_views

    place = _device(model, device)
    variant = Variant(
        model=name or _name(model),
        method=method,
        chain=() if method == ORIGINAL else (Step(method),),  # nobody but its maker knows what was done to it
        team=team or os.environ.get("COMPRESS_TEAM") or "none",
        family=_FAMILY,
        source="notebook",
        weights="local",
        devices=(place,),
        batch_size=_batch_size(batch),
        budget=Budget(min_seconds=seconds, max_seconds=max(20 * seconds, 1.0), energy_seconds=0),
    )
    result = _measured(model, batch, variant, place)
    if log:
        _log(result)
    return notebook_views.ShownResult.of(result)


def compare(
    experiment: str | Sequence[str],
    *,
    team: str | Sequence[str] = (),
    model: str | Sequence[str] = (),
    method: str | Sequence[str] = (),
    device: Literal["", "cpu", "gpu"] = "",
    tracking_uri: str | None = None,
    every_run: bool = False,
    lang: Literal["en", "ru"] = "en",
    baseline: str | Sequence[str] = (),
) -> pd.DataFrame:
    """Return the comparison of experiments as a data frame, one line for each row of `compress-report`'s table.

    Args:
        experiment: its name, or a pattern (`hw*`), or several.
        team: only that of these teams; none: of all.
        model: only these models; none: all.
        method: only these methods; none: all.
        device: only what was measured on it; empty: all.
        tracking_uri: the tracking store; None takes MLflow's own choice in this process.
        every_run: a line for every run, not only for the newest of each variant.
        lang: the language in which it shows itself.
        baseline: a model or a run that rows are compared with in place of their own model's original, as
            `compress-report --baseline` takes it; or several.

    Returns:
        Columns `team`, `model`, `method`, `hardware`, then all metrics by name, then `ratio/<metric>`: the value
        divided by the original's. What nobody measured is NaN. It shows itself as the table of `compress-report`.

    Raises:
        StoreError: there is no such experiment or baseline, or the store can't be read.
    """
    from mlflow_compress.reporting import baselines, compare, notebook_views
    from mlflow_compress.reporting.table_text import ordered
    from mlflow_compress.tracking import query
    from mlflow_compress.tracking.connection import chosen_uri

    selection = Selection(_several(team), _several(model), _several(method), device)
    found = query.find(_several(experiment), selection, [tracking_uri or chosen_uri()], baselines=_several(baseline))
    comparison = compare.compare(
        found.runs,
        originals=found.originals,
        devices=_several(device),
        every_run=every_run,
        language=lang,
        baselines=found.baselines,
    )
    for sentence in baselines.idle(found.baselines, comparison.rows):
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
    """Compress a torch module that is in memory.

    Args:
        model: the module, in float32. It is put into eval mode.
        method: a chain as on the command line: `prune_magnitude:amount=0.5+int8_dynamic`.
        copy: whether to leave the given module as it is, which takes memory for both.

    Returns:
        The compressed module. What its reader must know is a warning.

    Raises:
        Unsupported: a method needs data, another runtime or a library, or does not apply. `compress-bench run` serves
            the first two.
        UnknownName, RecipeError: there is no such method or option.
    """
    from mlflow_compress.measuring import compression_check
    from mlflow_compress.networks import model_folder
    from mlflow_compress.planning import chains

    chain = chains.parse_chain(method)
    methods = model_folder.methods_of(chain)
    for each in methods:
        if each.changes == "runtime":
            raise Unsupported(_elsewhere(method, "makes no torch module, but a model of another runtime"))
    held = Model((_copied(model) if copy else model).eval(), weights="local", device=_device(model, "auto"))
    family, before = _InMemory(method), compression_check.State.of(held)
    after = before
    for step, each in zip(chain, methods, strict=True):
        held = each.compress(held, family)
        if each.changes != "nothing":
            after = compression_check.require_change(after, held, str(step))
    if after is not before:
        removes = any(each.changes == "architecture" for each in methods)
        held.cautions += compression_check.cautions(before, after, removes)
    for caution in held.cautions:
        warnings.warn(plain(f"{caution.message}. {caution.advice}"), stacklevel=2)
    module: nn.Module = held.module
    return module


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy; a weight that a hook made with gradients at the last call could not be copied as it is."""
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
    """The family of a module that nobody has told anything about: methods that ask for more don't apply."""

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
    """Measure the model when nobody else measures on this machine, and make its result as those of workers are."""
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
    if hasattr(model, "parameters"):  # of anything else that can be called nobody knows what executes it
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
    """Time the call and follow the process's memory, as a worker does."""
    from mlflow_compress.measuring.timing import Silent, TimedCall, time_call
    from mlflow_compress.meters import environment, gpu, memory

    surroundings = {"load_before": environment.load_average()}
    if device == "cuda":
        gpu.reset()
        surroundings |= environment.gpu()
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
    """Have torch take no more threads than may run at once, as in a worker, and leave their number as it was."""
    import torch

    from mlflow_compress.meters import environment

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, environment.most_threads()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Have a module in eval mode, and leave each part of it as it was."""
    modules = list(model.modules()) if hasattr(model, "modules") and hasattr(model, "training") else []
    training = [each for each in modules if each.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True


def _call(model: Callable[..., Any], batch: Any) -> Callable[[], Any]:
    from mlflow_compress.networks import module_calls

    how = module_calls.passing(batch, model, lambda: batch)
    given = module_calls.arguments(batch, how, model)
    return lambda: module_calls.called(model, given)


def _batch_size(batch: Any) -> int:
    """Return the length of the first tensor or array of a batch; 1 where there is none."""
    from mlflow_compress.networks import value_trees

    shapes = [tuple(leaf.shape) for leaf in value_trees.leaves(batch) if hasattr(leaf, "shape")]
    return max(1, int(shapes[0][0])) if shapes and shapes[0] else 1


def _name(model: Any) -> str:
    return getattr(model, "__name__", "") or type(model).__name__


def _device(model: Any, asked: str) -> str:
    """Say where a model runs: `cpu` or `cuda`.

    Raises:
        RecipeError: another place was named than the one where it is.
        WorkerError: this machine has no such place.
    """
    from mlflow_compress.planning import requirements

    if asked not in ("auto", "cpu", "cuda"):
        raise RecipeError(str(UnknownName("device", asked, ("auto", "cpu", "cuda"))))
    requirements.require_device(asked)
    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    if first is None:
        return "cpu" if asked == "auto" else asked
    place = str(first.device.type)
    if asked not in ("auto", place):
        raise RecipeError(f"The module is on {place}, not on {asked}. Move it there first: model.to({asked!r}).")
    return place


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(None, (names,))) if isinstance(names, str) else tuple(names)


def _log(result: Result) -> None:
    from mlflow_compress.tracking import experiment_note, reading
    from mlflow_compress.tracking.sending import write_into_open_run
    from mlflow_compress.tracking.writing import fluent_run, run_name

    variant = result.variant
    with fluent_run(run_name(variant.team, variant.model, variant.method)) as (store, run_id):
        write_into_open_run(store, run_id, result)
        with contextlib.suppress(StoreError):  # what was measured is there
            experiment_id = reading.experiment_of(store, run_id)
            experiment_note.describe(store, experiment_id, reading.experiment_name(store, experiment_id))
