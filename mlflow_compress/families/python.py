"""One's own `torch.nn.Module`, from a function in one's own file.

The file is Python code of the user's. It defines:

* `model()`: build the architecture and give the module. Options may name another function.
* `batch(size)`: give the inputs of one timed call: a tensor, or a tuple of tensors for several arguments.
* `load_weights(module)`, optional: fill the module, from a checkpoint or by training it. What it gives is cached.
* `samples()`, optional: give the labelled samples that were never trained on, as pairs (input, reference).
* `training()`, optional: give the inputs that methods may calibrate and train on, none of those that `samples` gives:
  tensors as the module takes them, the first axis counts them; a tuple of such tensors for several arguments.
* `student(keep)`, optional: build a smaller module that takes and gives the same, of about the share `keep` of the
  layers or of the width of `model()`, for the method distill to train.
* `predict(module, inputs)`, optional: give one prediction per input. Without it, the inputs are stacked, and the index
  of the greatest output is the prediction.
* `metrics`, optional: the names of the metrics that score it (default: accuracy).

It may import modules that lie beside it, and read files below its folder, where relative paths start. It is copied into
the model's folder, with the modules that it imports and what it reads while it builds the model (64 MiB at most), so
that the model can be restored without the rest. `model()` is called each time that the model is restored: load weights
in `load_weights`. What that sets outside of the state dict, in numbers, texts and tensors, is kept too.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.networks import own_folder
from mlflow_compress.networks.export_graphs import Calls, dtype_of
from mlflow_compress.networks.exported_modules import ExportedModule, OutputForm, flattened, form_of, module_graph
from mlflow_compress.networks.outside_state import put_back
from mlflow_compress.networks.own_checkpoint import Fit, fill_from
from mlflow_compress.networks.own_code import Built, OwnCode, at_source, build, came_with_us, defined, loaded
from mlflow_compress.networks.own_weights import fill_cached
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Evaluation, Family, Graph, Mark, Model, Sample

CHECKPOINT = "checkpoint"  # the fact: what was taken of it
CAST_WEIGHTS = CautionKind(
    "cast_weights",
    short={"en": "weights cast to the precision of the module", "ru": "веса приведены к точности модуля"},
    message={
        "en": "the weights were cast to the precision of the module: {cast}",
        "ru": "веса приведены к точности модуля: {cast}",
    },
    advice={
        "en": "To measure them as they are, build the module in their precision in model().",
        "ru": "Чтобы измерить их как есть, постройте модуль с их точностью в model().",
    },
)


@dataclass
class Python(Family):
    """A module of the user's own.

    Attributes:
        function: the function that builds the architecture.
    """

    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = "one call of the module on the tensors that the file's batch() gives, already on the device"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    calibrates_on: ClassVar[str] = "inputs that samples() does not give, in a function training() of its file"
    needs: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "safetensors.torch")

    function: str = "model"

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Name the file, unless it is one that came with this package."""
        path = folder / source
        return "" if not path.is_file() or came_with_us(path) else f"{path} is Python code"

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Build the module and fill it: by `load_weights`, from its cache, or from a path (see `Family.load`)."""
        import torch

        path = folder / source
        own = loaded(path, seed)
        module = build(own, self.function)
        if not isinstance(module, torch.nn.Module):
            raise RecipeError(f"{path}: {self.function}() gave a {type(module).__name__}, not a torch.nn.Module.")
        can_fill = hasattr(own.code, "load_weights")
        kind: Literal["random", "local"] = "random"
        fit = Fit()
        if weights not in ("auto", "pretrained", "random"):
            fit = fill_from(module, folder / weights)
            kind = "local"
        elif weights == "pretrained" and not can_fill:
            raise WeightsError(f"{path} defines no load_weights(module). Define it, or give weights=PATH.")
        elif weights != "random" and can_fill:
            fill_cached(module, own, self.function)
            kind = "local"
        module.requires_grad_(False)
        module.eval()
        model = Model(module, weights=kind, family_data=own)
        if fit.steps:
            model.facts[CHECKPOINT] = "; ".join(fit.steps)
        if fit.cast:
            model.cautions.append(CAST_WEIGHTS.of(cast=fit.cast))
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Take the inputs from the file's `batch`, and move floating-point ones to the module's dtype."""
        import torch

        torch.manual_seed(seed)
        inputs = defined(model.data_as(OwnCode), "batch")(size)
        inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        return [_placed(tensor, model) for tensor in inputs]

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Call the module; gives what it gives."""
        return model.module(*batch)

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: the module's arguments to `output`, or to `output_0`, `output_1` and so on.

        An axis is `batch` where its length is the number that the file's batch() was asked for.

        Raises:
            Unsupported: the module takes or gives something else than tensors.
        """
        try:
            inputs, outputs = self._probe(model, 2)
            others = self._probe(model, 3)
            pairs = zip((*inputs, *outputs), (*others[0], *others[1]), strict=True)
            axes = [_batch_axes(few.shape, more.shape) for few, more in pairs]
        except Unsupported:
            raise
        except Exception:  # it takes one batch size only
            inputs, outputs = self._probe(model, model.batch_size)
            axes = [{} for _ in (*inputs, *outputs)]
        arguments = _arguments(model.module, len(inputs))
        names = ["output"] if len(outputs) == 1 else [f"output_{index}" for index in range(len(outputs))]
        dynamic = {name: each for name, each in zip((*arguments, *names), axes, strict=True) if each}
        inputs_by_name = dict(zip(arguments, inputs, strict=True))
        return {"model": module_graph(model.module, inputs_by_name, names, dynamic)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Put the exported module in the module's place; it gives what the module gave: a tensor, a tuple or a dict."""
        model.module = ExportedModule(calls, _form(model))
        return model

    def _probe(self, model: Model, size: int) -> tuple[list[Any], list[Any]]:
        """Return the inputs and the outputs of a call; keeps the form of these."""
        import torch

        inputs = self.batch(model, size, 0)
        with torch.no_grad():
            output = model.module(*inputs)
        outputs = flattened(output)
        if not all(isinstance(each, torch.Tensor) for each in (*inputs, *outputs)):
            raise Unsupported(
                "only a module that takes tensors, and gives a tensor, or a tuple or dict of them, is exported"
            )
        model.data_as(OwnCode).form = form_of(output)
        return inputs, outputs

    def outputs_are_scores(self, model: Model) -> bool:
        """Return whether the prediction is the index of the greatest output, the file having no `predict`."""
        return not hasattr(model.data_as(OwnCode).code, "predict")

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw from the file's `training()`; without one, from `batch` (see `Family.calibration`)."""
        import torch

        own = model.data_as(OwnCode)
        if not hasattr(own.code, "training"):
            return super().calibration(model, count, seed, size)
        inputs = defined(own, "training")()
        inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randint(0, len(inputs[0]), (size,), generator=generator) for _ in range(count)]
        return [[_placed(tensor[indices], model) for tensor in inputs] for indices in drawn]

    def student(self, model: Model, keep: float) -> Model:
        """Build what the file's `student(keep)` gives, with new weights.

        Raises:
            Unsupported: the file has no such function.
        """
        own = model.data_as(OwnCode)
        if not hasattr(own.code, "student"):
            raise Unsupported(
                f"{own.path.name} defines no student(keep): define it to build a smaller module that takes and gives "
                "the same"
            )
        made = dataclasses.replace(own, built=Built("student", [keep]))
        student = dataclasses.replace(model, structure={}, family_data=made)
        student.module = build(made, self.function)
        return student

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Take the file's own labelled samples; `data` can only be `own`."""
        if data != "own":
            raise RecipeError(
                f"A model of one's own brings its samples in its file: say data=own or none, not {data!r}."
            )
        model.evaluation = Evaluation(data, folder, limit, seed)
        pairs = list(defined(at_source(model.data_as(OwnCode), model.origin), "samples")())
        if limit is not None and limit < len(pairs):
            pairs = random.Random(seed).sample(pairs, limit)  # noqa: S311  (nothing secret)
        return [Sample(inputs, reference) for inputs, reference in pairs]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Predict with the file's `predict`, or by the greatest output."""
        import torch

        own = getattr(model.data_as(OwnCode).code, "predict", None)
        with torch.inference_mode():
            if own is not None:
                return list(own(model.module, inputs))
            stacked = torch.stack([torch.as_tensor(each) for each in inputs])
            output = model.module(_placed(stacked, model))
            return list(output.argmax(-1).tolist())

    def example(self, model: Model) -> list[Any]:
        """Return the first of the file's own samples; without these, of the only tensor that `batch` gives."""
        if hasattr(model.data_as(OwnCode).code, "samples"):
            return [next(iter(self.samples(model, "own", Path(), None, 0))).inputs]
        inputs = self.batch(model, 1, 0)
        return [inputs[0][0]] if len(inputs) == 1 else []

    def save(self, model: Model, folder: Path) -> None:
        """Copy the file and what it needs beside it; write how the module is built, and what it gives if exported."""
        own_folder.keep(model.data_as(OwnCode), model.structure, folder)

    def restore(self, folder: Path) -> Model:
        """Build the module anew from the copied file."""
        model = self.restore_assets(folder)
        own = model.data_as(OwnCode)
        model.module = build(own, self.function)
        put_back(own.outside, model.module)
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Run the copied file."""
        own, structure = own_folder.restored(folder)
        return Model(None, weights="local", structure=structure, family_data=own)


def _form(model: Model) -> OutputForm:
    form = model.data_as(OwnCode).form
    assert form is not None
    return form


def _arguments(module: Any, count: int) -> list[str]:
    """Name the first arguments of a module: by its own names, where they are explicit."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [each.name for each in inspect.signature(module.forward).parameters.values() if each.kind in kinds]
    is_clear = len(own) >= count and not any(name.startswith("output") for name in own)
    return own[:count] if is_clear else [f"input_{index}" for index in range(count)]


def _batch_axes(few: Sequence[int], more: Sequence[int]) -> dict[int, str]:
    """Return the axes that were 2 long for two samples and 3 for three.

    Raises:
        ValueError: another axis has changed.
    """
    changed = {axis: pair for axis, pair in enumerate(zip(few, more, strict=True)) if len(set(pair)) > 1}
    if any(pair != (2, 3) for pair in changed.values()):
        raise ValueError(changed)
    return dict.fromkeys(changed, "batch")


def _placed(tensor: Any, model: Model) -> Any:
    dtype = dtype_of(model.module) if tensor.is_floating_point() else None
    return tensor.to(model.device, dtype)
