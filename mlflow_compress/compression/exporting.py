"""Common part of the export methods: a model's graphs become files in a folder and run from these files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import re
import shutil
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression import coverage
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.error_causes import cause_line, is_of_this_package, is_out_of_memory, own_place
from mlflow_compress.errors import CompressError, Unsupported, WeightsError
from mlflow_compress.networks import generation_check, made_weights, value_trees
from mlflow_compress.networks.fused_layers import unfused
from mlflow_compress.networks.native_flavors import GraphFlavor, graph_flavor
from mlflow_compress.networks.native_precision import widen
from mlflow_compress.networks.output_parts import Observed, differ, observe
from mlflow_compress.networks.published_files import publish_runtime
from mlflow_compress.networks.stored_weights import Held, held
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Graph, Method, Model, NativeFlavor, Published, State

FEWER_WEIGHTS = CautionKind(
    "fewer_weights",
    short={
        "en": "the exported graph holds fewer weights than the module",
        "ru": "в экспортированном графе меньше весов, чем в модели",
    },
    message={
        "en": "the exported graph holds {kept} of the module's {given} weights: the exported call does not need the "
        "others",
        "ru": "в экспортированном графе {kept} из {given} весов модели: остальные экспортированному вызову не нужны",
    },
    advice={
        "en": "This makes the size smaller, not compression. Remove the unused parts from the module and measure the "
        "original again.",
        "ru": "Размер меньше из-за этого, а не за счёт сжатия. Уберите из модели то, что не используется, и измерьте "
        "оригинал заново.",
    },
)
_ALL_WEIGHTS = 0.9  # share of the parameters; exporters fold batch normalisation and store equal tensors once
_STEADY = 0.01  # maximum relative difference of the outputs of two equal calls
_OTHER_SEEDS = 1, 2  # seeds of further batches: a path may depend on the user's own values
_ONE_PATH = "its path depends on the values of its inputs, and an export contains only one path"
_OF_VALUES = ("data-dependent", "DataDependent")  # in torch.export's messages of that case
_DEVIATIONS = 4  # of rounding errors: more is another constant
_GRAPHS = "graphs.json"
_OUR_FOLDER = re.compile(r"\S*/mlflow-compress-\w+/")  # a temporary folder in a library's message
_FEWEST_SAMPLES, _MOST_SAMPLES = 16, 128  # default range of calibration samples
_MOST_BYTES = 2**28  # of kept inputs, above the fewest samples

Call = Callable[..., tuple[Any, ...]]
Values = tuple[int, float, float]


@dataclass
class ExportMethod(Method):
    """A method that converts the family's graphs for another runtime, each into a file.

    Attributes:
        tolerance: Maximum relative difference of the outputs from the module's; finite for a pure conversion.
        converts: Whether it converts all weights instead of quantising some.
        exporter: Common name of the library that takes the graphs.
        loaded_by: Python expression with which the runtime's own library loads a file, with a pattern as the file name
            (`onnxruntime.InferenceSession("*.onnx")`).
        flavor: MLflow flavor that loads its file; None: MLflow has none.
        takes_half: Whether it takes weights in half precision; otherwise they are cast to float32 first.
    """

    changes: ClassVar[Literal["runtime"]] = "runtime"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "runtime"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    tolerance: ClassVar[float] = float("inf")
    converts: ClassVar[bool] = True
    revision: ClassVar[int] = 2
    exporter: ClassVar[str] = "the exporter"
    loaded_by: ClassVar[str] = ""
    flavor: ClassVar[GraphFlavor | None] = None
    takes_half: ClassVar[bool] = False

    @abstractmethod
    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Write all graphs into the folder.

        Returns:
            The model; its module is not used any more.
        """

    @abstractmethod
    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a graph's file.

        Args:
            name: Name of the graph.
            buffers: Constants that are not weights (see `has_weights`).
            model: Model that the graph is part of.
            folder: Folder of the file.

        Returns:
            A callable that runs the graph. It has `held_weights` (see `stored_weights.held`) and, if its engine is not
            torch, `runtime`: the name of the engine's distribution.
        """

    def compress(self, model: Model, family: Family) -> Model:
        """Export the model without fused layers, and run it from the files.

        Raises:
            Unsupported: The family gives no graphs of the model, they can't be exported, or the export computes
                something else than the module.
            WorkerError: The export generates something else.
        """
        try:
            with unfused():
                return self._compressed(model, family)
        except (CompressError, Unsupported, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error) or is_of_this_package(error):
                raise
            raise Unsupported(f"{self.exporter} can't convert the model: {_why(error)}") from error

    def _compressed(self, model: Model, family: Family) -> Model:
        made_weights.fold(model.module)
        if not self.takes_half:
            widen(model, self.exporter)
        generated = generation_check.generate(family, model)
        graphs = family.graphs(model)
        samples = _checked_size(model, graphs)
        observations = [observe(family, model, samples)]
        if not observations[0].moved(family, model) <= _STEADY:
            raise Unsupported(
                "the module gives different outputs at each call, for the same inputs and random numbers: it keeps "
                "state between calls, and an export would not"
            )
        if self.tolerance < float("inf"):
            observations += [observe(family, model, samples, seed) for seed in _OTHER_SEEDS]
        model = self._exported(model, family, graphs, observations)
        if not model.elsewhere:
            model.cautions += generation_check.require_past(generated, generation_check.generate(family, model))
        if self.converts_all():
            coverage.note_all(model)
        return model

    def elsewhere(self) -> str:
        """Return why this machine can't run the converted files but another can; empty if it can."""
        return ""

    def converts_all(self) -> bool:
        """Return whether it converts all weights with its options, instead of quantising some."""
        return self.converts

    def _exported(
        self, model: Model, family: Family, graphs: Mapping[str, Graph], observations: Sequence[Observed]
    ) -> Model:
        """Export the model, run it from the files, and check its outputs and weights."""
        folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-")
        _write_buffers(graphs, Path(folder.name), with_attributes=True)
        with quiet():
            model = self.export(model, family, graphs, Path(folder.name))
        model.module = None
        model.files = folder
        calls = self._calls(model, Path(folder.name))
        model = _attached(model, family, calls)
        model.elsewhere = self.elsewhere()
        if self.tolerance < float("inf") and not model.elsewhere:
            for observed in observations:
                moved = observed.moved(family, model)
                if not (moved <= self.tolerance or observed.is_by_chance(moved)):
                    draws = ": it draws random numbers, and the export draws different ones or none"
                    raise Unsupported(
                        f"the outputs of the model converted by {self.exporter} {differ(moved)} from the original's"
                        f"{draws if observed.spread else ''}"
                    )
            for name, graph in graphs.items():
                require_alike(graph, calls[name], self.tolerance)
        return self._with_all_weights(model, family, graphs, Path(folder.name))

    def _with_all_weights(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Count the weights in the files; add a caution if they are fewer than the module's.

        A tensor in a plain attribute of a module counts as a weight if too few are counted without it: then it was
        computed from the parameters.
        """
        sizes = {id(weight): weight.numel() for graph in graphs.values() for weight in graph.module.parameters()}
        expected, without_attributes = sum(sizes.values()), coverage.total(model.module)
        if without_attributes < _ALL_WEIGHTS * expected:
            _write_buffers(graphs, folder, with_attributes=False)
            model.module = None
            model = self.load(model, family, folder)
            if abs(coverage.total(model.module) - expected) >= expected - without_attributes:
                _write_buffers(graphs, folder, with_attributes=True)
                model.module = None
                model = self.load(model, family, folder)
        if (exported := coverage.total(model.module)) < _ALL_WEIGHTS * expected:
            model.cautions.append(FEWER_WEIGHTS.of(kept=f"{exported:,}", given=f"{expected:,}"))
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Copy the files."""
        assert model.files is not None
        shutil.copytree(model.files.name, folder, dirs_exist_ok=True)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Open the files.

        Raises:
            WeightsError: They are missing.
        """
        model = _attached(model, family, self._calls(model, folder))
        model.elsewhere = self.elsewhere()
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Copy the runtime's files, with the tokenizer and the config beside them (see `Method.publish`)."""
        if not self.loaded_by:
            raise Unsupported("the method does not state how the runtime's own library loads its files")
        return publish_runtime(saved, self.loaded_by, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Return the flavor of the runtime's file (see `Method.native_flavor`)."""
        return super().native_flavor(saved, family) if self.flavor is None else graph_flavor(saved, self.flavor)

    def _calls(self, model: Model, folder: Path) -> dict[str, Call]:
        try:
            graphs = json.loads((folder / _GRAPHS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"There are no exported graphs in {folder}: {error}") from error
        if not (isinstance(graphs, dict) and all(name.isidentifier() for name in graphs)):
            raise WeightsError(f"{folder / _GRAPHS} names graphs that are not files of the model.")
        return {name: self.open(name, buffers, model, folder) for name, buffers in graphs.items()}


def _attached(model: Model, family: Family, calls: Mapping[str, Call]) -> Model:
    """Replace the module by the callables that run the graphs."""
    model = family.attach(model, calls)
    model.runtime = next((str(call.runtime) for call in calls.values() if hasattr(call, "runtime")), "torch")
    return model


def record(
    model: Model, family: Family, calls: Mapping[str, Call], samples: int | None
) -> dict[str, list[tuple[Any, ...]]]:
    """Return the real inputs of each graph: those of its first and last run in each of some timed calls.

    Args:
        model: Model whose module is replaced.
        family: Family that gives the data and runs them.
        calls: Callables that run the graphs.
        samples: Number of calls, of one sample each; None: 128 different ones, fewer (but at least 16) if they take
            more than 256 MiB, and 16 if the weights are random.
    """
    import torch

    recorded: dict[str, list[tuple[Any, ...]]] = {name: [] for name in calls}
    of_call: dict[str, list[tuple[Any, ...]]] = {}  # at first also of what drawing the data runs

    def recorder(name: str) -> Call:
        def run(*inputs: Any) -> tuple[Any, ...]:
            of_call[name] = [*of_call.get(name, [])[:1], inputs]
            return calls[name](*inputs)

        return run

    model.module = None
    model = family.attach(model, {name: recorder(name) for name in calls})
    with torch.inference_mode():
        for batch in _calibration(model, family, samples, recorded):
            family.run(model, batch, lambda stage: None)
            if len(of_call) < len(calls):
                family.forward(model, batch)
            for name, inputs in of_call.items():
                recorded[name] += inputs
            of_call.clear()
    model.module = None
    return recorded


def _calibration(
    model: Model, family: Family, samples: int | None, recorded: Mapping[str, list[tuple[Any, ...]]]
) -> Iterator[Any]:
    """Yield the batches to record on; `recorded` has the inputs so far, whose size limits the number of batches."""
    first = family.calibration(model, samples or _FEWEST_SAMPLES, seed=0)
    yield from first
    if samples is not None or model.weights == "random":
        return
    sizes = {id(tensor): tensor.nbytes for calls in recorded.values() for inputs in calls for tensor in inputs}
    count = min(_MOST_SAMPLES, len(first) * _MOST_BYTES // max(1, sum(sizes.values())))
    if count <= len(first):
        return
    for batch in family.calibration(dataclasses.replace(model, cautions=[]), count, seed=0)[len(first) :]:
        if value_trees.is_equal(batch, first[0]):  # no more data: the samples repeat
            return
        yield batch


def require_integers(model: Model) -> Model:
    """Record in the model's facts how many of its parameters are integers now.

    Raises:
        Unsupported: None is.
    """
    weights = [(part.parameters, part.tensor.is_floating_point()) for part in held(model.module)]
    total, integers = sum(size for size, _ in weights), sum(size for size, is_float in weights if not is_float)
    if not integers:
        raise Unsupported("there is no layer that the method quantises")
    coverage.record(model, integers, total)
    return model


def write_counts(module: Any, path: Path) -> None:
    """Write the number of parameters and of non-zero parameters next to a file in which they can't be counted."""
    weights = list(module.parameters())
    counts = [sum(weight.numel() for weight in weights), sum(int(weight.count_nonzero()) for weight in weights)]
    path.write_text(json.dumps(counts), encoding="utf-8")


def counted(file: Path, counts: Path) -> Iterator[Held]:
    """Yield a file's bytes as weights, with the counts of `write_counts` (see `stored_weights.held`)."""
    import torch

    parameters, nonzero = json.loads(counts.read_text(encoding="utf-8"))
    content = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
    yield Held(content, parameters, lambda: torch.ones(nonzero, dtype=torch.bool))


def array(tensor: Any) -> Any:
    """Return a tensor as an array, without a copy if it is on the CPU and contiguous."""
    return tensor.detach().cpu().contiguous().numpy()


def has_weights(constant: Any, buffers: Sequence[Values], step: float = 0.0) -> bool:
    """Return whether a floating-point constant of an exported graph holds weights.

    Constants of one element belong to the arithmetic. Buffers of the module (a detector's anchors, the statistics of
    batch normalisation) are not weights either.

    Args:
        constant: The constant; the numbers that its integers stand for, if it is quantised.
        buffers: Values of the module's buffers.
        step: Distance of neighbouring numbers in the constant, by which rounding may have moved a buffer's.
    """
    return constant.size > 1 and not any(_alike(_values(constant), values, step) for values in buffers)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress exporters' warnings and progress, also printed ones; their errors are still raised."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w", encoding="utf-8") as nothing,
        contextlib.redirect_stdout(nothing),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _checked_size(model: Model, graphs: Mapping[str, Graph]) -> int:
    """Return a batch size that the graphs accept: 1 if it is dynamic."""
    axes = [names for graph in graphs.values() for names in graph.dynamic.values()]
    return 1 if any("batch" in names.values() for names in axes) else model.batch_size


def _why(error: Exception) -> str:
    """Return why a module was not exported, with the place in the user's code if known."""
    source_line = own_place(error)
    suffix = f" ({source_line})" if source_line else ""
    cause = _OUR_FOLDER.sub("", cause_line(error))
    return f"{_ONE_PATH if any(sign in cause for sign in _OF_VALUES) else cause}{suffix}"


def _write_buffers(graphs: Mapping[str, Graph], folder: Path, *, with_attributes: bool) -> None:
    """Write next to the graphs' files which of their constants are not weights."""
    buffers = {name: list(_buffers(graph.module, with_attributes)) for name, graph in graphs.items()}
    (folder / _GRAPHS).write_text(json.dumps(buffers), encoding="utf-8")


def _buffers(module: Any, with_attributes: bool) -> Iterator[Values]:
    """Yield the values of all tensors of a module that are not parameters, also as runtimes transform them.

    OpenVINO replaces division by multiplication. A constant tensor is skipped if a parameter of its length has the
    same value: the two can't be distinguished.

    Args:
        module: Module with the tensors.
        with_attributes: Include plain attributes (a detector's anchors), except in layers with forward pre-hooks:
            such hooks make weights.
    """
    import torch

    for layer in module.modules():
        attributes = vars(layer) if with_attributes and not layer._forward_pre_hooks else {}
        for tensor in (*layer._buffers.values(), *attributes.values()):
            is_number = isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel() > 1
            if is_number:
                forms = tensor.float(), -tensor.float(), 1 / tensor.float()  # subtraction and division are rewritten
                yield from (_values(array(form)) for form in forms if _is_recognisable(form, module))


def _is_recognisable(tensor: Any, module: Any) -> bool:
    """Return whether a tensor is finite and not constant with the same value as a parameter of its length."""
    least, most = float(tensor.min()), float(tensor.max())
    if least < most or not math.isfinite(least):
        return math.isfinite(least) and math.isfinite(most)
    same_length = (parameter for parameter in module.parameters() if parameter.numel() == tensor.numel())
    return not any(bool((parameter == least).all()) for parameter in same_length)


def _values(constant: Any) -> Values:
    """Return length, sum and sum of squares: they identify an array after transposing and reshaping."""
    import numpy as np

    exact = np.asarray(constant, dtype=np.float64)
    return exact.size, float(exact.sum()), float(np.square(exact).sum())


def _alike(one: Values, other: Values, step: float) -> bool:
    """Return whether two constants are equal except for rounding to multiples of a step."""
    size, _, squares = one
    deviation = step / math.sqrt(12)  # of the error of one rounded number
    errors = (
        _DEVIATIONS * deviation * math.sqrt(size),
        2 * _DEVIATIONS * deviation * math.sqrt(squares) + size * deviation**2,
    )
    return size == other[0] and all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=max(1e-6, error))
        for a, b, error in zip(one[1:], other[1:], errors, strict=True)
    )
