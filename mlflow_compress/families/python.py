"""A custom `torch.nn.Module`, built by a function in the user's file.

The user's Python file defines:

* `model()`: build the architecture and return the module. Options may name another function, and state with
  `initial: trained` that it loads or trains its weights itself, so that they are not random.
* `batch(size)`: return the inputs of one timed call: a tensor, a tuple for several arguments, a dictionary whose keys
  are names of `forward`'s parameters, or anything else that `forward` takes as its only argument. Tensors may be nested
  in lists, dictionaries and dataclasses; numbers, texts and arrays are passed unchanged.
* `load_weights(module)`, optional: fill the module, from a checkpoint or by training it. The result is cached.
* `samples()`, optional: return labelled samples that were never used for training, as pairs (input, reference): a list,
  a generator, or a torch Dataset. The input is one sample of a batch: a tuple or dictionary for several arguments.
* `training()`, optional: return inputs for calibration and training, none of which `samples` returns, in one object
  with the structure of a batch: the first axis of each tensor counts them.
* `training_labels()`, optional: return the labels of what `training` returns, in the same order: numbers of classes, or
  true values. Methods that train on labels need it. Their loss is the cross-entropy, or the mean squared error of true
  values, unless `loss(output, labels)` computes another one.
* `student(keep)`, optional: build a smaller module with the same inputs and outputs, with about the share `keep` of the
  layers or the width of `model()`, to be trained by the method distill.
* `predict(module, inputs)`, optional: return one prediction per input: a label, or a dictionary that maps each label to
  its probability, for metrics such as `roc_auc`. Without it, inputs of the same shape are
  stacked, others run one by one, and the prediction is the index of the highest score. The scores are the output that
  the recipe names (`output:`), or `logits`, or the only tensor.
* `metrics`, optional: names of the metrics that score it (default: accuracy).

The file may import modules beside it, and read files below its folder, where relative paths start. It is copied into
the model's folder, with its imported modules and the data needed to build the model and to predict (64 MiB at most), so
that the model can be restored alone. `model()` runs each time the model is restored: load weights in `load_weights`. A
checkpoint that `model()` reads is copied too, and does not count in the size on disk. Numbers, texts, arrays and
tensors that `load_weights` sets outside the state dict are kept as well.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.model import NOT_SAVED
from mlflow_compress.networks import module_calls, own_folder, own_samples, random_state, value_trees
from mlflow_compress.networks.class_scores import Ranking
from mlflow_compress.networks.export_graphs import Calls, dtype_of
from mlflow_compress.networks.exported_modules import ExportedModule
from mlflow_compress.networks.module_calls import Arguments
from mlflow_compress.networks.module_graphs import graph_of
from mlflow_compress.networks.outside_state import fitting, put_back
from mlflow_compress.networks.own_checkpoint import Fit, fill_from
from mlflow_compress.networks.own_code import Built, OwnCode, at_home, at_source, build, came_with_us, defined, loaded
from mlflow_compress.networks.own_weights import fill_cached
from mlflow_compress.networks.plain_modules import make_real, unwrapped
from mlflow_compress.networks.published_files import copy_plain, require_weights
from mlflow_compress.networks.score_output import answers_of, classes_of, has_two_batch_axes, score_of
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Evaluation, Family, Graph, Labelled, Mark, Model, Published, Sample

_PLAIN = (int, float, str)
_DRAWN_AT_ONCE = 32  # batches that methods which train draw at once
CHECKPOINT = "checkpoint"  # fact: what was used from the checkpoint
READ_AGAIN = "read_again"  # fact: weight files that model() reads each time the model is restored
CAST_WEIGHTS = CautionKind(
    "cast_weights",
    short={"en": "weights cast to the precision of the module", "ru": "веса приведены к точности модуля"},
    message={
        "en": "the weights were cast to the precision of the module: {cast}",
        "ru": "веса приведены к точности модуля: {cast}",
    },
    advice={
        "en": "To measure them in their own precision, build the module in that precision in model().",
        "ru": "Чтобы измерить их как есть, постройте модуль с их точностью в model().",
    },
)

SET_ELSEWHERE = CautionKind(
    "set_elsewhere",
    short={"en": "load_weights() sets values that are not saved", "ru": "load_weights() задаёт то, что не сохраняется"},
    message={
        "en": "load_weights() sets values that are not saved, and the model was measured without them: {names}",
        "ru": "load_weights() задаёт то, что не сохраняется, и модель измерена без этого: {names}",
    },
    advice={
        "en": "In load_weights(), set only tensors, arrays, numbers and texts of the module; set the rest in model().",
        "ru": "Задавайте в load_weights() только тензоры, массивы, числа и тексты модуля, а остальное в model().",
    },
)
NOT_COMPILED = CautionKind(
    "not_compiled",
    short={"en": "torch.compile was removed", "ru": "torch.compile убран"},
    message={
        "en": "torch.compile was removed from the module, which was measured without it",
        "ru": "torch.compile убран: модуль измерен без него",
    },
    advice={
        "en": "The method torch_compile measures the compiled module.",
        "ru": "Скомпилированный модуль измеряет метод torch_compile.",
    },
)


@dataclass
class Python(Family):
    """A custom PyTorch module from a Python file.

    Attributes:
        function: the function that builds the architecture.
        initial: its initial weights: `trained` if the function loads or trains them, so that they are scored.
        output: the output with the scores: its name, its index, or the path to it (`hidden.0`); empty: `logits`, or
            the only tensor.
    """

    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = "one call of the module on the tensors that the file's batch() gives, already on the device"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    calibrates_on: ClassVar[str] = "a function training() in its file, with inputs that samples() does not return"
    needs: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "safetensors.torch")

    runs_users_code: ClassVar[bool] = True

    function: str = "model"
    output: str | int = ""
    initial: Literal["random", "trained"] = "random"

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Describe the file, unless it came with this package."""
        path = folder / source
        return "" if not path.is_file() or came_with_us(path) else f"{path} is Python code"

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Build the module and fill it: by `load_weights`, from its cache, or from a path (see `Family.load`)."""
        import torch

        path = folder / source
        own = loaded(path, seed)
        model = Model(build(own, self.function), family_data=own)
        module = model.module
        if not isinstance(module, torch.nn.Module):
            raise RecipeError(f"{path}: {self.function}() returned a {type(module).__name__}, not a torch.nn.Module.")
        self._make_real(model)
        can_fill = hasattr(own.code, "load_weights")
        model.weights = "random" if self.initial == "random" else "local"
        fit = Fit()
        if weights not in ("auto", "pretrained", "random"):
            fit = fill_from(module, folder / weights)
            model.weights = "local"
        elif weights == "pretrained" and not can_fill:
            raise WeightsError(f"{path} defines no load_weights(module). Define it, or set weights=PATH.")
        elif weights != "random" and can_fill:
            fill_cached(module, own, self.function)
            model.weights = "local"
        if self._simplify(model):
            model.cautions.append(NOT_COMPILED.of())
        if own.lost:
            model.facts[NOT_SAVED] = ", ".join(own.lost)
            model.cautions.append(SET_ELSEWHERE.of(names=model.facts[NOT_SAVED]))
        if fit.steps:
            model.facts[CHECKPOINT] = "; ".join(fit.steps)
        if fit.cast:
            model.cautions.append(CAST_WEIGHTS.of(cast=fit.cast))
        return model

    def _make_real(self, model: Model) -> None:
        """Create the parameters of lazy layers with a first batch."""
        module = model.module

        def run(inner: Any) -> None:
            copy = dataclasses.replace(model, module=inner)
            self.run(copy, self.batch(copy, 1, 0), lambda stage: None)

        make_real(module, run)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Call the file's `batch`, and convert floating-point inputs to the module's dtype.

        Returns:
            A list of arguments, or a dictionary of arguments by name (see `module_calls.passing`).
        """
        own = model.data_as(OwnCode)
        random_state.seed_all(seed)
        return self._arguments(model, defined(own, "batch")(size), lambda: defined(own, "batch")(size + 1))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Call the module and return its output."""
        return model.module(**batch) if isinstance(batch, dict) else model.module(*batch)

    def parts(self, model: Model, output: Any) -> list[tuple[Any, float]]:
        """Return each tensor, array and number of the output as a separate part (see `Family.parts`)."""
        return [(leaf, 0.0) for leaf in value_trees.leaves(output)]

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from the module's tensors to `output`, or to `output_0`, `output_1` and so on.

        An axis is `batch` if its length equals the size passed to the file's batch().

        Raises:
            Unsupported: it takes or returns no tensors (see `module_graphs.graph_of`).
        """
        own = model.data_as(OwnCode)
        graph, form = graph_of(
            model.module, lambda size, seed: self.batch(model, size, seed), model.batch_size, vars(own.code)
        )
        own.form = dataclasses.replace(form, passing=own.passing)
        return {"model": graph}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported module, with the same inputs and outputs."""
        own = model.data_as(OwnCode)
        assert own.form is not None
        model.module = ExportedModule(calls, own.form, vars(own.code))
        return model

    def _arguments(self, model: Model, inputs: Any, another: Callable[[], Any]) -> Arguments:
        """Return the file's inputs as arguments of a call, on the device; `another` returns inputs of another size."""
        own = model.data_as(OwnCode)
        own.passing = own.passing or module_calls.passing(inputs, model.module, another)
        arguments = module_calls.arguments(inputs, own.passing, model.module)
        placed: Arguments = value_trees.placed(arguments, model.device, dtype_of(model.module))
        return placed

    def outputs_are_scores(self, model: Model) -> bool:
        """Return whether the prediction is the index of the highest output, since the file has no `predict`."""
        return not hasattr(model.data_as(OwnCode).code, "predict")

    def scores(self, model: Model, output: Any) -> Any:
        """Return the output that `output` names, or `logits`, or the only tensor; empty if there are several."""
        try:
            return score_of(output, self.output)
        except RecipeError:
            if self.output != "":
                raise
            return []

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw from the file's `training()`: no more batches than it has samples, or 32 if it has fewer.

        Without `training()`, draw from `batch` (see `Family.calibration`).

        Raises:
            RecipeError: `training()` does not return what `batch()` returns.
        """
        import torch

        own = model.data_as(OwnCode)
        if not hasattr(own.code, "training"):
            return super().calibration(model, count, seed, size)
        inputs = defined(own, "training")()
        tensors = value_trees.tensors(inputs)
        if not tensors:
            raise RecipeError(
                f"{own.path}: training() returned a {type(inputs).__name__} without tensors: return what batch() "
                "returns, with all inputs in it."
            )
        if type(inputs) is list and all(isinstance(sample, torch.Tensor) for sample in inputs):
            self._require_a_batch(model, inputs)
        generator = torch.Generator().manual_seed(seed)
        count = min(count, max(len(tensors[0]), _DRAWN_AT_ONCE))  # more batches would only repeat the samples
        selections = [torch.randint(0, len(tensors[0]), (size,), generator=generator) for _ in range(count)]
        return [
            self._arguments(model, _select(inputs, indices, len(tensors[0])), lambda: inputs) for indices in selections
        ]

    def _require_a_batch(self, model: Model, inputs: list[Any]) -> None:
        """Check that a list of tensors from `training()` holds the module's arguments, not one tensor for each sample.

        Raises:
            RecipeError: `batch()` returns something else.
        """
        own = model.data_as(OwnCode)
        one, two = (defined(own, "batch")(size) for size in (1, 2))
        is_list = isinstance(one, (list, tuple))
        if is_list and (len(one) == len(inputs) or len(one) != len(two)):
            return
        given = f"{len(one)} tensors" if is_list else f"a {type(one).__name__}"
        raise RecipeError(
            f"{own.path}: training() returned a list of {len(inputs)} tensors, but batch() returns {given}: return "
            "what batch() returns, with all inputs in it. torch.stack makes one tensor of a list of samples."
        )

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw from the file's `training()` and `training_labels()` (see `Family.labelled`).

        Raises:
            Unsupported: the file lacks one of them.
        """
        import torch

        own = model.data_as(OwnCode)
        missing = [name for name in ("training", "training_labels") if not hasattr(own.code, name)]
        if missing and model.weights == "random":
            return super().labelled(model, count, seed, size)
        if missing:
            raise Unsupported(f"{own.path.name} defines no {missing[0]}(): methods that train on labels need it")
        labels = torch.as_tensor(defined(own, "training_labels")())
        inputs = value_trees.tensors(defined(own, "training")())
        if not inputs or len(labels) != len(inputs[0]):
            samples = len(inputs[0]) if inputs else 0
            raise RecipeError(
                f"{own.path}: training() returns {samples} samples, but training_labels() returns {len(labels)} labels."
            )
        generator = torch.Generator().manual_seed(seed)
        targets = [labels[torch.randint(0, len(labels), (size,), generator=generator)] for _ in range(count)]
        batches = self.calibration(model, count, seed, size)  # draws the same samples
        return [Labelled(*pair) for pair in zip(batches, value_trees.placed(targets, model.device, None), strict=True)]

    def forward_labelled(self, model: Model, labelled: Labelled) -> tuple[Any, Any]:
        """Run the module; the loss is that of the file's `loss(output, labels)`, or see `Family.forward_labelled`."""
        from torch.nn import functional

        own = model.data_as(OwnCode)
        output = self.forward(model, labelled.batch)
        if hasattr(own.code, "loss"):
            return output, defined(own, "loss")(output, labelled.targets)
        scores = score_of(output, self.output)
        if labelled.targets.is_floating_point():
            return output, functional.mse_loss(
                scores.reshape(labelled.targets.shape), labelled.targets.to(scores.dtype)
            )
        return output, functional.cross_entropy(scores.flatten(0, -2), labelled.targets.flatten())

    def student(self, model: Model, keep: float) -> Model:
        """Build the file's `student(keep)`, with new weights.

        Values that `load_weights` set outside the original's state dict are copied if they fit.

        Raises:
            Unsupported: the file has no such function.
        """
        return self._built_student(model, Built("student", [keep]), "student(keep)")

    def named_student(self, model: Model, source: str, weights: str, seed: int) -> Model:
        """Build the student with a function of the file, without arguments (see `student`)."""
        return self._built_student(model, Built(source, []), f"{source}()")

    def _built_student(self, model: Model, built: Built, call: str) -> Model:
        own = model.data_as(OwnCode)
        if not hasattr(own.code, built.function):
            raise Unsupported(
                f"{own.path.name} defines no {call}: define it to build a smaller module with the same inputs and "
                "outputs"
            )
        code = dataclasses.replace(own, built=built)
        student = dataclasses.replace(model, structure={}, family_data=code)
        student.module = build(code, self.function)
        self._make_real(student)
        code.outside = fitting(own.outside, student.module)
        put_back(code.outside, student.module)
        trained = {name for name, weight in student.module.named_parameters() if weight.requires_grad}
        self._simplify(student)
        for name, weight in student.module.named_parameters():
            weight.requires_grad_(name in trained)
        return student

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Return the labelled samples in the file; `data` can only be `own`."""
        if data != "own":
            raise RecipeError(f"A custom model has its samples in its file: use data=own or data=none, not {data!r}.")
        model.evaluation = Evaluation(data, folder, limit, seed)
        own = at_source(model.data_as(OwnCode), model.origin)
        with at_home(own.path):
            samples = own_samples.read(defined(own, "samples")(), f"{own.path}: samples()")
        model.data_as(OwnCode).has_one_label = all(type(sample.reference) in _PLAIN for sample in samples)
        if limit is not None and limit < len(samples):
            samples = random.Random(seed).sample(samples, limit)  # noqa: S311  (nothing secret)
        return samples

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Predict with the file's `predict`, or by the highest output.

        Raises:
            RecipeError: see `answers`.
        """
        return [answer[0] if isinstance(answer, Ranking) else answer for answer in self.answers(model, inputs)]

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the predictions; for one class of each sample, with the scores of all classes.

        Raises:
            RecipeError: the inputs are not like those of `batch()`, or it is not clear which output has the scores.
        """
        import torch

        own = model.data_as(OwnCode)
        inputs = [own_samples.unnamed(sample) for sample in inputs]
        with torch.inference_mode(), at_home(own.path):
            if hasattr(own.code, "predict"):
                return list(defined(own, "predict")(model.module, inputs))
            predictions: list[Any] = []
            at_once = own.form.samples if own.form is not None else None
            calls = self._guide(model).arguments(inputs, at_once)
            for arguments in calls:
                placed = value_trees.placed(arguments, model.device, dtype_of(model.module))
                output = module_calls.called(model.module, placed)
                count = at_once or (len(inputs) if len(calls) == 1 else 1)
                scores = score_of(output, self.output)
                if at_once is None and has_two_batch_axes(
                    scores, count
                ):  # with one sample it is clear which axis counts samples
                    return [answer for sample in inputs for answer in self.answers(model, [sample])]
                predictions += answers_of(scores, count) if own.has_one_label else classes_of(scores, count)
                is_list = isinstance(predictions[-1], list) and not isinstance(predictions[-1], Ranking)
                if own.has_one_label and is_list:  # metrics would treat it as a ranking
                    raise RecipeError(
                        f"The module returns {len(predictions[-1])} predictions for each sample (its scores have shape "
                        f"{list(scores.shape)}), but samples() returns one reference: return as many references, or "
                        "define predict(module, inputs) in the model's file."
                    )
        return predictions[: len(inputs)]

    def _guide(self, model: Model) -> own_samples.Guide:
        own = model.data_as(OwnCode)
        if own.guide is None:
            single = self.batch(model, 1, 0)
            try:
                own.guide = own_samples.Guide(single, self.batch(model, 2, 0))
            except Exception:  # its batches have a fixed size
                own.guide = own_samples.Guide(single, single)
        return own.guide

    def example(self, model: Model) -> list[Any]:
        """Return the first of the file's samples; without samples, the first row if a batch is one tensor.

        Several inputs are returned by name (see `own_samples.named`).

        Raises:
            Unsupported: a sample has a nested input.
        """
        own = model.data_as(OwnCode)
        if hasattr(own.code, "samples"):
            inputs = next(iter(self.samples(model, "own", Path(), None, 0))).inputs
            if parts := own_samples.named(inputs):
                return [parts]
            is_one = hasattr(inputs, "shape") or all(type(leaf) in _PLAIN for leaf in value_trees.leaves(inputs))
            if not is_one or isinstance(inputs, Mapping):
                raise Unsupported(
                    f"a sample in {own.path.name} is a {type(inputs).__name__} of nested inputs, which the "
                    "signature of a logged model can't describe"
                )
            return [inputs]
        inputs = self.batch(model, 1, 0)
        tensors = value_trees.tensors(inputs)
        return [tensors[0][0]] if len(inputs) == len(tensors) == 1 and tensors[0].dim() else []

    def save(self, model: Model, folder: Path) -> None:
        """Copy the file and the files that it needs; write how the module is built, and the form of its outputs."""
        if read_again := own_folder.keep(model.data_as(OwnCode), model.structure, folder):
            model.facts[READ_AGAIN] = read_again

    def publish(self, saved: Path, folder: Path) -> Published:
        """Copy the user's file, the files that it needs, and the state dict as safetensors."""
        require_weights(saved)
        code_path = own_folder.place_of(saved)
        copy_plain(saved, folder)
        path = f"FOLDER/{code_path.parent}" if code_path.parent.name else "FOLDER"
        code = (
            f'import sys; sys.path.insert(0, "{path}"); import safetensors.torch, {code_path.stem}; '
            f"module = {code_path.stem}.{self.function}(); "
            'safetensors.torch.load_model(module, "FOLDER/model.safetensors"); module.eval()'
        )
        return Published(code, ("torch", "safetensors"))

    def restore(self, folder: Path) -> Model:
        """Build the module from the copied file."""
        model = self.restore_assets(folder)
        own = model.data_as(OwnCode)
        model.module = build(own, self.function)
        self._make_real(model)
        put_back(own.outside, model.module)
        self._simplify(model)
        return model

    def _simplify(self, model: Model) -> bool:
        """Remove wrappers, and prepare the module for inference; return whether it was compiled."""
        model.module, is_compiled = unwrapped(model.module)
        model.module.requires_grad_(False)
        model.module.eval()
        return is_compiled

    def restore_assets(self, folder: Path) -> Model:
        """Run the copied file."""
        own, structure = own_folder.restored(folder)
        facts = {NOT_SAVED: ", ".join(own.lost)} if own.lost else {}
        return Model(None, weights="local", structure=structure, family_data=own, facts=facts)


def _select(inputs: Any, indices: Any, count: int) -> Any:
    """Select samples by index in every tensor whose first axis has the length `count`."""
    return value_trees.mapped(
        lambda leaf: leaf[indices] if getattr(leaf, "shape", ()) and leaf.shape[0] == count else leaf, inputs
    )
