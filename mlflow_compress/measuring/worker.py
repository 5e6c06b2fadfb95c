"""The measured process: `prepare` compresses and saves; `measure` restores, times and scores; `time` only times.

`try` restores, makes one call, and predicts two samples: see `model_trial`.

It is started as `python -m mlflow_compress.measuring.worker VERB FOLDER [DEVICE [HOW]]`. It reads `variant.json` in
the folder, and writes one `Part` there. It reports progress as lines of JSON on standard output; the output of
libraries goes to standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mlflow_compress.error_causes import is_out_of_memory, own_place
from mlflow_compress.errors import CompressError, MachineLacks, Unsupported, WorkerError, one_line
from mlflow_compress.measuring import model_trial
from mlflow_compress.records import Caution, Outcome, Part, Variant, finite, metric_group, read_json, write_json
from mlflow_compress.sockets import Family, Model
from mlflow_compress.torch_devices import ACCELERATORS, CPU, HARDWARE, LABELS
from mlflow_compress.words import ORIGINAL

if TYPE_CHECKING:
    from mlflow_compress.measuring.timing import TimedCall
    from mlflow_compress.meters.memory import MemoryMeter

VARIANT, MODEL_FOLDER = "variant.json", "model"
SCORE = "score"  # the argument HOW of `measure`
_STARTED = time.monotonic()
OUTPUTS, GENERATED = "outputs.safetensors", "generated.pt"
PARENT = "COMPRESS_PARENT"  # environment: the process that the worker must not outlive
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, see prctl(2)
NO_EXAMPLE = "no_input_example"  # the fact: why the logged model has none
UNFINISHED = Outcome("failed", "scoring did not end")  # outcome of quality until scoring ends
_ERROR_LINES = 30
# numbers of the measuring process, which are not those of a model in another one
_OF_THIS_PROCESS = re.compile(r"/(load_ms|ram_|cpu_time_share|context_switches|page_faults)")
_OF_BUSY_THREADS = ("interference", "page_faults")  # cautions about them: a client waits for its service
# torch's message: The operator 'aten::x' is not currently implemented for the MPS device
_NO_OPERATOR = re.compile(r"operator '([\w:.]+)' is not currently (?:implemented|supported) (?:for|on) the (\w+)")


def part_file(verb: str, device: str = "") -> str:
    """Return the name of the file for the part of a verb."""
    return f"{verb}-{device}.json" if device else f"{verb}.json"


class Report:
    """Reports progress to the parent process, as lines of JSON."""

    def __init__(self, stream: TextIO, where: str = "") -> None:
        self._stream = stream
        self._where = where
        self._stage = ""
        self._told = 0.0

    def stage(self, name: str) -> None:
        """Report that a stage begins."""
        self._stage = f"{self._where}{name}"
        self._write({"stage": self._stage})

    def warn(self, text: str) -> None:
        """Report a warning that the user must see now, not after an hour."""
        self._write({"stage": self._stage, "warning": text})

    def turn(self, count: int, seconds: float, call_ms: float) -> float:
        """Wait for the turn, in a measurement in turns; return its milliseconds, 0 if there are no more turns."""
        self._write({"turn": {"count": count, "seconds": seconds, "call_ms": call_ms}})
        return float(sys.stdin.readline() or 0)

    def progress(self, done: int, total: int | None, seconds_left: float | None) -> None:
        """Report the progress of the stage, at most four times a second."""
        now = time.monotonic()
        if now - self._told >= 0.25:
            self._told = now
            self._write({"stage": self._stage, "done": done, "total": total, "seconds_left": seconds_left})

    def _write(self, event: dict[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()
        except OSError:  # the parent is gone or does not read: measuring goes on
            pass


def prepare(variant: Variant, folder: Path, report: Report) -> Part:
    """Load the original, apply the chain of methods, and save the compressed model."""
    from mlflow_compress import registry
    from mlflow_compress.compression import coverage
    from mlflow_compress.measuring import compression_check, output_error
    from mlflow_compress.measuring.compression_cost import CompressionCost
    from mlflow_compress.meters import size
    from mlflow_compress.networks import generation_check, model_card, model_folder, own_folder

    _require_devices(variant)
    family = registry.build("families", variant.family, variant.options)
    methods = model_folder.methods_of(variant.chain)
    for step, method in zip(variant.chain, methods, strict=True):
        if (reason := method.excludes.get(variant.family)) is not None:
            raise Unsupported(f"{step.method} does not support {variant.family}: {reason}")
    _set_threads(variant)
    model = model_trial.loaded(family, variant, report.stage, report.warn)
    model.progress = lambda done, total: report.progress(done, total, None)
    is_changed = not variant.is_original
    if is_changed and (refusal := family.refuses(model)):
        raise Unsupported(refusal)
    saved = original = output_error.outputs(family, model, variant, None if is_changed else 1)
    inputs = output_error.inputs(family, model, variant) if is_changed else []
    operations, cost = _operations(family, model, variant), CompressionCost()
    if variant.data and not is_changed and model.weights != "random":
        model_card.fetch(variant.source, variant.weights, Path(variant.folder))
    state_before = state = compression_check.State.of(model) if is_changed else None
    untrue: list[Caution] = []
    for step, method in zip(variant.chain, methods, strict=True):
        untrue += coverage.outdated(model.cautions, method)
        if step.method != ORIGINAL:
            report.stage(f"compressing: {step}")
        with cost.step():
            model = method.compress(model, family)
        if method.changes == "architecture" and method.gives in (None, "float", "half"):
            operations = _operations(family, model, variant)
        if state is not None and step.method != ORIGINAL:
            state = compression_check.require_change(state, model, str(step), method)
    model.cautions = coverage.without(model.cautions, untrue)
    if state_before is not None and state is not None:
        if not model.elsewhere:
            repeat = functools.partial(output_error.outputs, family, model, variant, len(original.passes))
            saved = compression_check.tried(repeat, variant.method, model.module)
        removes = any(method.changes == "architecture" for method in methods)
        model.cautions += compression_check.cautions(state_before, state, removes, model.cautions)
    is_comparable = not is_changed or output_error.read_alike(inputs, output_error.inputs(family, model, variant))
    if not is_comparable:
        model.cautions.append(output_error.OTHER_INPUTS.of())
    if not model.elsewhere:
        output_error.keep(original, saved, folder / OUTPUTS, is_comparable)
        generation_check.keep(family, model, folder / GENERATED)
    report.stage("saving")
    target = folder / MODEL_FOLDER
    target.mkdir()
    model_folder.save(model, family, methods, variant, target)
    report.stage("sizing")
    return Part(
        Outcome("ok"),
        measurements={
            **({} if family.is_remote else size.on_disk(target, own_folder.weights_read_again(target))),
            **(size.in_memory(model.module) if model.elsewhere else {}),
            **operations,
            **(cost.numbers() if is_changed else {}),
        },
        cautions=(*model.cautions, *output_error.cautions(original, is_changed)),
        facts={**model.facts, "weights": model.weights, "timed": type(family).timed, "family": variant.family},
    )


def _operations(family: Family, model: Model, variant: Variant) -> dict[str, float]:
    """Return `size/macs` of a model with float weights; nothing if its operations can't be counted."""
    from mlflow_compress.meters import macs

    if family.is_remote:
        return {}
    try:
        operations = macs.count(family, model, variant.batch_size, variant.seed)
    except Exception:  # any error of the model's code or of torch's counter: only this number is missing
        traceback.print_exc(limit=_ERROR_LINES)
        return {}
    return {} if operations is None else {"size/macs": operations}


def measure(variant: Variant, folder: Path, device: str, score: bool, report: Report) -> Part:
    """Restore the saved model on a device and measure everything; score it if `score` is set."""
    from mlflow_compress.compression.coverage import NO_KERNEL
    from mlflow_compress.measuring import checks, layer_table, output_error, quality
    from mlflow_compress.meters import environment, memory, size
    from mlflow_compress.networks import generation_check, kernels
    from mlflow_compress.networks.stored_weights import held

    group = metric_group(device)
    meter = memory.MemoryMeter()
    _import_all(variant)
    _set_threads(variant)
    load_before = {"load_before": environment.load_average()}
    cautions = checks.busy(environment.busy_share())
    surroundings = {**environment.machine(), **_open_device(device, cautions), **load_before}
    meter.end_phase("import")

    started = time.perf_counter()
    model, family = _restored(folder, device, report)
    model.origin = Path(variant.folder, variant.source)
    numbers = {f"{group}/load_ms": (time.perf_counter() - started) * 1000}
    surroundings["runtime"] = environment.runtime(model.runtime)
    meter.end_phase("load")
    if family.is_remote:  # the energy of this process says nothing about it
        variant = dataclasses.replace(variant, budget=dataclasses.replace(variant.budget, energy_seconds=0.0))

    timed = _time(family, model, device, variant, meter, report)
    numbers |= timed.measurements
    cautions += [caution for caution in timed.cautions if not (family.is_remote and caution.code in _OF_BUSY_THREADS)]
    samples, facts = dict(timed.samples), dict(timed.facts)
    if family.is_remote:
        numbers = {name: number for name, number in numbers.items() if not _OF_THIS_PROCESS.search(name)}
    if score and family.is_remote and (loaded := family.under_load(model, variant.seed, report, folder)) is not None:
        numbers |= loaded.measurements
        cautions += loaded.cautions
        samples |= loaded.samples
        facts |= loaded.facts
    numbers |= size.in_memory(model.module)
    cautions += [NO_KERNEL.of(bits=bits) for bits in kernels.bits_without_kernel(model.module)]
    kernel = kernels.kernels_of(model.module)  # after the calls, which choose between kernel and dense product
    if device == CPU:
        # only weights with parameters: scales cost nothing
        dtypes = {str(weight.tensor.dtype) for weight in held(model.module) if weight.parameters}
        cautions += checks.precision(dtypes, environment.emulated())

    moved = output_error.compare(family, model, variant, folder / OUTPUTS, device, cautions)
    generation_check.compare(family, model, folder / GENERATED, device)
    if score and not variant.is_original:
        numbers |= moved
    part = Part(
        Outcome("ok"),
        measurements=finite(numbers),
        samples=samples,
        cautions=tuple(cautions),
        environment={**surroundings, **timed.environment, "load_after": environment.load_average()},
        facts={
            "memory_source": memory.ELSEWHERE if family.is_remote else meter.source,
            **facts,
            **({f"kernel.{group}": kernel} if kernel else {}),
        },
    )
    if score and model.weights != "random" and quality.is_scored(variant):
        # keep the timing in case the process is stopped or killed while it scores
        write_json(folder / part_file("measure", device), dataclasses.replace(part, quality=UNFINISHED))
        part = _with_scores(part, _score(family, model, variant, folder, report))
    if score:
        layer_table.write(model.module, folder)
        part = dataclasses.replace(part, facts={**part.facts, **_show(family, model, variant, folder, report)})
    return part


def _with_scores(part: Part, scored: Part) -> Part:
    """Return the timing together with the scores.

    The output error on random inputs is left out if there are scores: it could contradict scores on real inputs.
    """
    from mlflow_compress.measuring.output_error import NUMBERS

    is_scored = scored.outcome.status == "ok"
    timed = {name: value for name, value in part.measurements.items() if not (is_scored and name in NUMBERS)}
    return dataclasses.replace(
        part,
        quality=scored.outcome,
        measurements={**timed, **finite(scored.measurements)},
        cautions=(*part.cautions, *scored.cautions),
        facts={**part.facts, **scored.facts},
    )


def time_again(variant: Variant, folder: Path, device: str, launches: int, report: Report) -> Part:
    """Restore the saved model in a further launch, and time the launch's share of the calls."""
    from mlflow_compress.measuring import timing

    _import_all(variant)
    _set_threads(variant)
    _open_device(device, [])
    model, family = _restored(folder, device, report)
    call = _timed_call(family, model, device, variant, _batch(family, model, variant))
    return timing.time_again(call, variant.budget, report, variant.interleave, launches)


def _restored(folder: Path, device: str, report: Report) -> tuple[Model, Family]:
    """Restore the saved model, with all of its weights in memory.

    Raises:
        MachineLacks: Only another machine can run it.
    """
    from mlflow_compress.networks import model_folder

    report.stage("restoring")
    restored = model_folder.restore(folder / MODEL_FOLDER, device)
    if restored.model.elsewhere:
        raise MachineLacks(restored.model.elsewhere)
    _touch(restored.model.module)
    return restored.model, restored.family


def _time(family: Family, model: Model, device: str, variant: Variant, meter: MemoryMeter, report: Report) -> Part:
    """Time the family's call on one batch (see `timing.time_call`)."""
    from mlflow_compress.measuring import timed_work, timing

    batch = _batch(family, model, variant)
    work = timed_work.describe(type(family).timed, timed_work.options_of(family), batch)
    call = _timed_call(family, model, device, variant, batch)
    part = timing.time_call(
        call, variant.budget, meter, report, variant.interleave, lambda: time.monotonic() - _STARTED
    )
    return dataclasses.replace(part, facts={**part.facts, "work": work})


def _batch(family: Family, model: Model, variant: Variant) -> Any:
    """Return the input of one call."""
    import torch

    with torch.inference_mode():
        return family.batch(model, variant.batch_size, variant.seed)


def _timed_call(family: Family, model: Model, device: str, variant: Variant, batch: Any) -> TimedCall:
    """Return the timed call: the family's call on one batch."""
    from mlflow_compress.measuring.timing import TimedCall

    size, seed = variant.batch_size, variant.seed
    return TimedCall(
        run=lambda mark: family.run(model, batch, mark),
        device=device,
        batch_size=size,
        around=lambda: family.around(model, size, seed),
        rates=lambda latency_ms, stages_ms: family.rates(latency_ms, stages_ms, size),
        warmed=model.warmed,
        runtime=model.runtime,
        first_calls=model.first_calls,
    )


def _show(family: Family, model: Model, variant: Variant, folder: Path, report: Report) -> dict[str, str]:
    """Write an input example for the logged model; if that fails, return the reason as a fact."""
    from mlflow_compress.measuring import input_example

    report.stage("making the input example")
    try:
        input_example.keep(family, model, folder)
    except Unsupported as reason:
        return {NO_EXAMPLE: str(reason)}
    except Exception as error:
        traceback.print_exc(limit=_ERROR_LINES)
        return {NO_EXAMPLE: _reason_of(variant, folder, error)}
    return {}


def _score(family: Family, model: Model, variant: Variant, folder: Path, report: Report) -> Part:
    """Score the model. An error becomes a separate outcome: the timing stays."""
    from mlflow_compress.measuring import quality

    report.stage("scoring")
    try:
        part = quality.score(family, model, variant, folder, report.progress)
    except Exception as error:
        traceback.print_exc(limit=_ERROR_LINES)
        part = Part(Outcome("failed", _reason_of(variant, folder, error)))
    return dataclasses.replace(part, facts={**model.facts, **part.facts}, cautions=(*part.cautions, *model.cautions))


def _require_devices(variant: Variant) -> None:
    """Check, before anything is loaded, that a variant that requires a GPU has one.

    Raises:
        WorkerError: The variant must be measured on CUDA only, and there is no such device.
        MachineLacks: It must be measured on another accelerator only, or the models of a method run on an accelerator
            only, and there is none.
    """
    from mlflow_compress import registry
    from mlflow_compress.meters import accelerators

    if variant.devices == ("cuda",) and (lack := accelerators.lack("cuda")):
        raise WorkerError(f"device=cuda was requested, but {lack}")
    if CPU not in variant.devices and all(accelerators.lack(device) for device in variant.devices):
        raise MachineLacks(accelerators.lack(variant.devices[0]))
    for step in variant.chain:
        devices = registry.find("methods", step.method).devices
        if CPU not in devices and all(lacks := [accelerators.lack(device) for device in devices]):
            kinds = " or ".join(HARDWARE[device] for device in devices)
            raise MachineLacks(f"models of {step.method} run on an {kinds} only, but {lacks[0]}")


def _open_device(device: str, cautions: list[Caution]) -> dict[str, str]:
    """Initialise the device and describe it; add a caution if other programs use it.

    Raises:
        MachineLacks: This machine has no such device.
    """
    if device == CPU:
        return {}
    import torch

    from mlflow_compress.measuring import checks
    from mlflow_compress.meters import accelerators, environment, gpu

    if lack := accelerators.lack(device):
        raise MachineLacks(lack)
    if device == "cuda":
        cautions += checks.busy(0.0, gpu.busy_share())
    torch.zeros(1, device=device)  # the memory of the device's context does not belong to the model
    gpu.reset(device)
    return environment.gpu(device)


def _import_all(variant: Variant) -> None:
    """Import all needed libraries, so that their memory is not counted as the model's."""
    from mlflow_compress import registry
    from mlflow_compress.networks import model_folder

    family = registry.build("families", variant.family, variant.options)
    model_folder.methods_of(variant.chain)
    for name in family.imports:
        importlib.import_module(name)


def _set_threads(variant: Variant) -> None:
    """Set the requested number of threads, or torch's own choice, but no more than can run at once here."""
    import torch

    from mlflow_compress.meters import environment

    torch.set_num_threads(variant.threads or min(torch.get_num_threads(), environment.most_threads()))


def _touch(module: Any) -> None:
    """Read one byte of every page of memory-mapped weights, so that they count as loaded."""
    from mlflow_compress.networks.stored_weights import held

    if hasattr(module, "parameters"):
        for tensor in (weight.tensor for weight in held(module)):
            if tensor.device.type == "cpu" and tensor.is_contiguous():
                tensor.view(-1)[:: max(1, 4096 // tensor.element_size())].sum()


def _outcome(action: Callable[[], Part]) -> Part:
    """Run a verb; turn an exception into an outcome with a reason."""
    try:
        return action()
    except Unsupported as reason:
        return Part(Outcome("skipped", str(reason), reason.cause))
    except NotImplementedError as error:
        if (lack := _missing_operator(error)) is None:
            traceback.print_exc(limit=_ERROR_LINES)
            return Part(Outcome("failed", _reason(error), "measuring"))
        return Part(Outcome("skipped", lack, "machine"))
    except CompressError as error:
        facts = {model_trial.OF_MODEL: error.doing} if isinstance(error, model_trial.ModelError) else {}
        return Part(Outcome("failed", str(error), error.cause), facts=facts)
    except Exception as error:
        traceback.print_exc(limit=_ERROR_LINES)
        return Part(Outcome("failed", _reason(error), "measuring"))


def _missing_operator(error: NotImplementedError) -> str | None:
    """Return which operator torch lacks on an accelerator; None for another error."""
    from mlflow_compress.meters import environment

    match = _NO_OPERATOR.search(str(error))
    if match is None or match[2].lower() not in ACCELERATORS:
        return None
    advice = f"; {environment.FALLBACK}=1 runs it on the CPU instead" if match[2] == LABELS["mps"] else ""
    return f"{environment.runtime('torch')} has no operator {match[1]} for {match[2]}{advice}"


def _reason(error: Exception) -> str:
    """Return an unexpected error in one line, with the place in the user's code that raised it."""
    if isinstance(error, CompressError):
        return model_trial.said(error)
    cause = "out of memory" if is_out_of_memory(error) else type(error).__name__
    code_line = own_place(error)
    return (
        f"{code_line}: {cause}: {one_line(error, most=500)}" if code_line else f"{cause}: {one_line(error, most=500)}"
    )


def _reason_of(variant: Variant, folder: Path, error: Exception) -> str:
    """Return an error of a restored model in one line, with the original name of the user's file."""
    from mlflow_compress.networks.own_folder import ALONE

    reason = _reason(error)
    if not (folder / MODEL_FOLDER / ALONE).is_file():
        return reason
    return re.sub(rf"(?<![\w.-]){re.escape(ALONE)}(?=, line )", lambda _: Path(variant.source).name, reason)


def _die_with_parent() -> None:
    """Make this process end when its parent dies, even if the parent is killed; on Linux the kernel ends it.

    Orphans of a daemon become children of this process, so that they are found and ended with it.
    """
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    if sys.platform != "linux":
        threading.Thread(target=_outlive_no_parent, args=(int(parent),), daemon=True).start()
        return
    import ctypes

    library = ctypes.CDLL(None)
    library.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    library.prctl(_SET_SUBREAPER, 1)
    if os.getppid() != int(parent):  # the parent died before prctl
        sys.exit(1)


def _outlive_no_parent(parent: int) -> None:
    """Wait for the end of the parent, and end this process and its children, on systems without `prctl`.

    A process whose parent has died can't be found by the id of its parent: on Windows that id may be in use again.
    """
    import psutil

    with contextlib.suppress(psutil.Error):  # it ended already
        psutil.Process(parent).wait()
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    os._exit(1)


def main() -> None:
    """Run one verb and write its part to the folder."""
    _die_with_parent()
    verb, folder, *arguments = sys.argv[1:]
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output
    number, _, launches = arguments[1].partition("/") if verb == "time" else ("", "", "")
    # In the first pair, the number of launches is not known yet.
    launch = f"launch {number} of {launches}" if launches != "1" else "the original"
    report = Report(stream, f"{launch}: " if verb == "time" else "")
    work = Path(folder)
    variant = Variant.from_json(read_json(work / VARIANT))
    if verb == "prepare":
        shutil.rmtree(work / MODEL_FOLDER, ignore_errors=True)
        part = _outcome(lambda: prepare(variant, work, report))
        write_json(work / part_file(verb), part)
        return
    device = arguments[0]
    if verb == "try":
        part = _outcome(lambda: model_trial.try_saved(variant, work / MODEL_FOLDER, work / OUTPUTS, report.stage))
    elif verb == "time":
        part = _outcome(lambda: time_again(variant, work, device, int(launches), report))
    else:
        part = _outcome(lambda: measure(variant, work, device, arguments[1:] == [SCORE], report))
    write_json(work / part_file(verb, device), part)


if __name__ == "__main__":
    main()
