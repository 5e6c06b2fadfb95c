"""What all methods of other runtimes share: a model's graphs become files in a folder, and run from these."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
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
_ALL_WEIGHTS = 0.9  # share of the parameters; exporters fold batch normalisation, and keep equal tensors once
_STEADY = 0.01  # relative difference of the outputs of two calls that are alike
_OTHER_SEEDS = 1, 2  # of batches beside the first: a path may depend on the user's own values
_ONE_PATH = "its path depends on the values of its inputs, and an export contains only one path"
_OF_VALUES = ("data-dependent", "DataDependent")  # in what torch.export says then
_GRAPHS = "graphs.json"
_OUR_FOLDER = re.compile(r"\S*/mlflow-compress-\w+/")  # a temporary one, in what a library says of a file
_FEWEST_SAMPLES, _MOST_SAMPLES = 16, 128  # to calibrate on, where nothing else is asked for
_MOST_BYTES = 2**28  # of inputs that are kept for it, from the fewest on

Call = Callable[..., tuple[Any, ...]]
Values = tuple[int, float, float]


@dataclass
class ExportMethod(Method):
    """A method that hands the family's graphs over to another runtime, each as a file.

    Attributes:
        tolerance: how far the outputs may be from the module's, relative to them; where it is only a conversion.
        converts: whether it takes all of the weights over, rather than quantise some.
        exporter: what people call the library that takes the graphs.
        loaded_by: the Python expression by which the runtime's own library loads a file, with the files' names as a
            pattern (`onnxruntime.InferenceSession("*.onnx")`).
        flavor: the flavor of MLflow that loads a file of it; None: MLflow has none.
        takes_half: whether it takes weights in half precision; else they are cast to float32 first.
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
            The model; its module is used no more.
        """

    @abstractmethod
    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a graph's file.

        Args:
            name: the graph's.
            buffers: what among its constants is no weight (see `has_weights`).
            model: the model that it is part of.
            folder: where the file is.

        Returns:
            What runs the graph. It has `held_weights`, as `stored_weights.held` gives it, and where its engine is not
            torch's, `runtime`: the distribution that it belongs to.
        """

    def compress(self, model: Model, family: Family) -> Model:
        """Export the model, with its layers one by one, and run it from the files.

        Raises:
            Unsupported: the family gives no graphs of it, they can't be exported, or what was exported computes
                something else than the module.
            WorkerError: it generates something else.
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
        before = [observe(family, model, samples)]
        if not before[0].moved(family, model) <= _STEADY:
            raise Unsupported(
                "the module gives other outputs at each call, for the same inputs and random numbers: it keeps state "
                "between calls, and an export would not"
            )
        if self.tolerance < float("inf"):
            before += [observe(family, model, samples, seed) for seed in _OTHER_SEEDS]
        model = self._exported(model, family, graphs, before)
        model.cautions += generation_check.require_past(generated, generation_check.generate(family, model))
        if self.converts:
            coverage.note_all(model)
        return model

    def _exported(self, model: Model, family: Family, graphs: Mapping[str, Graph], before: Sequence[Observed]) -> Model:
        """Export the model, run it from the files, and check what it gives and holds."""
        folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-")
        _write_buffers(graphs, Path(folder.name), with_attributes=True)
        with quiet():
            model = self.export(model, family, graphs, Path(folder.name))
        model.module = None
        model.files = folder
        calls = self._calls(model, Path(folder.name))
        model = _attached(model, family, calls)
        if self.tolerance < float("inf"):
            for observed in before:
                moved = observed.moved(family, model)
                if not (moved <= self.tolerance or observed.is_by_chance(moved)):
                    draws = ": it draws random numbers, and the export draws other ones or none"
                    raise Unsupported(
                        f"the outputs of the model converted by {self.exporter} {differ(moved)} from the original's"
                        f"{draws if observed.spread else ''}"
                    )
            for name, graph in graphs.items():
                require_alike(graph, calls[name], self.tolerance)
        return self._with_all_weights(model, family, graphs, Path(folder.name))

    def _with_all_weights(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Count the weights that the files hold; say it where they are fewer than the module's.

        A tensor that a module keeps as a plain attribute is a weight where without it too few are counted: it was made
        of the parameters.
        """
        weights = {id(each): each.numel() for graph in graphs.values() for each in graph.module.parameters()}
        given, counted_ = sum(weights.values()), coverage.total(model.module)
        if counted_ < _ALL_WEIGHTS * given:
            _write_buffers(graphs, folder, with_attributes=False)
            model.module = None
            model = self.load(model, family, folder)
            if abs(coverage.total(model.module) - given) >= given - counted_:
                _write_buffers(graphs, folder, with_attributes=True)
                model.module = None
                model = self.load(model, family, folder)
        if (kept := coverage.total(model.module)) < _ALL_WEIGHTS * given:
            model.cautions.append(FEWER_WEIGHTS.of(kept=f"{kept:,}", given=f"{given:,}"))
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Copy the files."""
        assert model.files is not None
        shutil.copytree(model.files.name, folder, dirs_exist_ok=True)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Open the files.

        Raises:
            WeightsError: they are not there.
        """
        return _attached(model, family, self._calls(model, folder))

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Copy the runtime's files, with the tokenizer and the config beside them (see `Method.publish`)."""
        if not self.loaded_by:
            raise Unsupported("the method does not state how the runtime's own library loads its files")
        return publish_runtime(saved, self.loaded_by, folder)

    def native_flavor(self, saved: Path, family: Family) -> NativeFlavor:
        """Point at the runtime's file (see `Method.native_flavor`)."""
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
    """Put what runs the graphs in the module's place."""
    model = family.attach(model, calls)
    model.runtime = next((str(call.runtime) for call in calls.values() if hasattr(call, "runtime")), "torch")
    return model


def record(
    model: Model, family: Family, calls: Mapping[str, Call], samples: int | None
) -> dict[str, list[tuple[Any, ...]]]:
    """Return what each graph really gets: the inputs of its first and last run in each of some timed calls.

    Args:
        model: the model, whose module is replaced.
        family: gives the data, and runs it.
        calls: what runs the graphs.
        samples: how many calls, of one sample each; None: 128 different ones, fewer (but at least 16) where they take
            more than 256 MiB, and 16 where the weights are random.
    """
    import torch

    seen: dict[str, list[tuple[Any, ...]]] = {name: [] for name in calls}

    def recorder(name: str) -> Call:
        def run(*inputs: Any) -> tuple[Any, ...]:
            now[name] = [*now.get(name, [])[:1], inputs]
            return calls[name](*inputs)

        return run

    model.module = None
    model = family.attach(model, {name: recorder(name) for name in calls})
    with torch.inference_mode():
        for batch in _calibration(model, family, samples, seen):
            now: dict[str, list[tuple[Any, ...]]] = {}
            family.run(model, batch, lambda stage: None)
            if len(now) < len(calls):
                family.forward(model, batch)
            for name, inputs in now.items():
                seen[name] += inputs
    model.module = None
    return seen


def _calibration(
    model: Model, family: Family, samples: int | None, seen: Mapping[str, list[tuple[Any, ...]]]
) -> Iterator[Any]:
    """Return the batches to record on, one after the other: `seen` says what those before have left."""
    few = family.calibration(model, samples or _FEWEST_SAMPLES, seed=0)
    yield from few
    if samples is not None or model.weights == "random":
        return
    kept = {id(tensor): tensor.nbytes for each in seen.values() for inputs in each for tensor in inputs}
    wanted = min(_MOST_SAMPLES, len(few) * _MOST_BYTES // max(1, sum(kept.values())))
    if wanted <= len(few):
        return
    for batch in family.calibration(dataclasses.replace(model, cautions=[]), wanted, seed=0)[len(few) :]:
        if value_trees.is_equal(batch, few[0]):  # there are no more: they begin again
            return
        yield batch


def require_integers(model: Model) -> Model:
    """Say in the model's facts how many of its parameters the method reached: those that are integers now.

    Raises:
        Unsupported: none is.
    """
    weights = [(each.parameters, each.tensor.is_floating_point()) for each in held(model.module)]
    total, integers = sum(size for size, _ in weights), sum(size for size, is_float in weights if not is_float)
    if not integers:
        raise Unsupported("there is no layer that the method quantises")
    coverage.record(model, integers, total)
    return model


def write_counts(module: Any, path: Path) -> None:
    """Note how many parameters a module has, and how many are not zero, beside a file in which they can't be seen."""
    weights = list(module.parameters())
    counts = [sum(each.numel() for each in weights), sum(int(each.count_nonzero()) for each in weights)]
    path.write_text(json.dumps(counts), encoding="utf-8")


def counted(file: Path, counts: Path) -> Iterator[Held]:
    """Return a file's bytes as the weights, and the parameters that `write_counts` noted, see `stored_weights.held`."""
    import torch

    parameters, nonzero = json.loads(counts.read_text(encoding="utf-8"))
    content = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
    yield Held(content, parameters, lambda: torch.ones(nonzero, dtype=torch.bool))


def array(tensor: Any) -> Any:
    """Return a tensor as an array, without a copy where it is on the CPU and contiguous."""
    return tensor.detach().cpu().contiguous().numpy()


def has_weights(constant: Any, buffers: Sequence[Values]) -> bool:
    """Tell whether an array of floating-point numbers among an exported graph's constants holds weights.

    Constants of one element are the arithmetic's own. What the module kept beside its parameters (a detector's anchors,
    the statistics of batch normalisation) is none either.
    """
    return constant.size > 1 and not any(_alike(_values(constant), each) for each in buffers)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters' warnings and progress from standard error; their errors are raised all the same."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _checked_size(model: Model, graphs: Mapping[str, Graph]) -> int:
    """Return a number of samples that the graphs take: one, where they take any."""
    axes = [names for graph in graphs.values() for names in graph.dynamic.values()]
    return 1 if any("batch" in names.values() for names in axes) else model.batch_size


def _why(error: Exception) -> str:
    """Return in words why a module was not exported, with the place in the user's code where that is known."""
    place = own_place(error)
    where = f" ({place})" if place else ""
    cause = _OUR_FOLDER.sub("", cause_line(error))
    return f"{_ONE_PATH if any(sign in cause for sign in _OF_VALUES) else cause}{where}"


def _write_buffers(graphs: Mapping[str, Graph], folder: Path, *, with_attributes: bool) -> None:
    """Note beside the graphs' files what among their constants is no weight."""
    buffers = {name: list(_buffers(graph.module, with_attributes)) for name, graph in graphs.items()}
    (folder / _GRAPHS).write_text(json.dumps(buffers), encoding="utf-8")


def _buffers(module: Any, with_attributes: bool) -> Iterator[Values]:
    """Return the values of all tensors that a module holds beside its parameters, and of what runtimes make of them.

    OpenVINO divides by multiplying. A tensor whose elements are all alike is left out where a parameter of its length
    has the same: they can't be told apart.

    Args:
        module: the module.
        with_attributes: tensors that are plain attributes, too (a detector's anchors), but for those of layers with
            hooks that come before a call: such hooks make weights.
    """
    import torch

    for layer in module.modules():
        attributes = vars(layer) if with_attributes and not layer._forward_pre_hooks else {}
        for tensor in (*layer._buffers.values(), *attributes.values()):
            is_number = isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel() > 1
            if is_number:
                written = tensor.float(), -tensor.float(), 1 / tensor.float()  # to add, and to multiply by
                yield from (_values(array(each)) for each in written if _is_known_again(each, module))


def _is_known_again(tensor: Any, module: Any) -> bool:
    """Return whether a tensor is finite, and not, as a parameter of its length is, all of one value: 0 or 1."""
    least, most = float(tensor.min()), float(tensor.max())
    if least < most or not math.isfinite(least):
        return math.isfinite(least) and math.isfinite(most)
    alike = (each for each in module.parameters() if each.numel() == tensor.numel())
    return not any(bool((each == least).all()) for each in alike)


def _values(constant: Any) -> Values:
    """Sum an array up, so that it is known again after transposing and reshaping: length, sum, and sum of squares."""
    import numpy as np

    exact = np.asarray(constant, dtype=np.float64)
    return exact.size, float(exact.sum()), float(np.square(exact).sum())


def _alike(one: Values, other: Values) -> bool:
    return one[0] == other[0] and all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in zip(one[1:], other[1:], strict=True)
    )
