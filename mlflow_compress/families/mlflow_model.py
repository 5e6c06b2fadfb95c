"""Models logged to MLflow: `models:/NAME/1`, `runs:/ID/model`, or the folder of an MLflow model."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.compression.calibration import EXAMPLE_CALIBRATION
from mlflow_compress.data import signatures
from mlflow_compress.data.datasets import draw_rows, scored
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, named_line
from mlflow_compress.networks import mlflow_folders, value_trees
from mlflow_compress.networks.class_scores import Ranking, as_logits
from mlflow_compress.networks.export_graphs import Calls, dtype_of
from mlflow_compress.networks.exported_modules import CallForm, ExportedModule
from mlflow_compress.networks.module_graphs import fixed_graph_of
from mlflow_compress.networks.own_files import require_own_files
from mlflow_compress.sockets import Family, Graph, Mark, Model, Sample
from mlflow_compress.trust_word import trust_word

_COPY, _STRUCTURE, _CHANGED = "mlflow", "structure.pt", "changed.json"
_LABEL = "label"
_FEWEST_ROWS = 16  # different rows that make an input example usable as data


@dataclass
class LoggedModel:
    """An MLflow model in a folder, and its derived data.

    Attributes:
        path: the folder.
        reason: why no method can change it; empty for torch modules.
        empty: a torch module without its weights; None for other models.
        form: form of the inputs and outputs of an exported module; None for others.
        example: its input example, or one generated from its signature; None until it is needed.
        is_made_up: whether the example was generated from the signature.
    """

    path: Path
    reason: str = ""
    empty: Any = None
    form: CallForm | None = None
    example: Any = None
    is_made_up: bool = False


@dataclass
class MlflowModel(Family):
    """An MLflow model, called as its users call it.

    A pickled torch module (`serialization_format="pickle"`) is extracted, and methods apply to it. For any other model
    only the original is measured; its memory includes that of its library, which can't be separated.

    Attributes:
        trust: whether to load a model that may contain code (any pickled one), which runs when it is loaded.
    """

    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "one predict() of the MLflow model, which checks its input too; of a pickled torch module, one forward pass. "
        "The input is the model's input example, repeated to the batch size, or made by its signature"
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    needs: ClassVar[tuple[str, ...]] = ("torch", "mlflow", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "mlflow.pyfunc", "safetensors.torch")
    takes_rows: ClassVar[bool] = True
    has_random_weights: ClassVar[bool] = False
    calibrates_on: ClassVar[str] = (
        f"{Family.calibrates_on}; or log the model with an input_example of {_FEWEST_ROWS} different rows or more"
    )

    trust: bool = False

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the model (see `Family.load`).

        Raises:
            WeightsError: there is no such model, or it can't be loaded here.
            RecipeError: loading it may run code, and the user did not trust it.
        """
        path = mlflow_folders.locate(source, weights, folder)
        require_own_files(path)
        return self._opened(path, source)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Repeat the model's input example to `size` rows; without one, generate rows with its signature's types.

        Raises:
            RecipeError: the model has neither an input example nor a signature.
            Unsupported: the device is a GPU, to which only torch modules can be moved.
        """
        if model.device != "cpu" and not _is_torch(model):
            raise Unsupported("the model's library chooses its device: it is measured only in the CPU run")
        rows = signatures.repeat(_example(model, seed), size)
        return _tensors(rows, model) if _is_torch(model) else rows

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Call the model's predict(), or the module, and return its output."""
        return model.module(*batch) if _is_torch(model) else model.module.loaded.predict(batch)

    def forward(self, model: Model, batch: Any) -> Any:
        """Return the outputs as numbers: texts as their checksums."""
        output = self.run(model, batch, lambda stage: None)
        return output if _is_torch(model) else _numbers(output)

    def refuses(self, model: Model) -> str:
        """Return why no method applies to a model that is not a torch module."""
        return "" if _is_torch(model) else model.data_as(LoggedModel).reason

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from `input_0` to the module's outputs, for one batch size.

        Raises:
            Unsupported: its outputs are not tensors, or can't be rebuilt.
        """
        graph, form = fixed_graph_of(model.module, self.batch(model, model.batch_size, 0))
        model.data_as(LoggedModel).form = form
        return {"model": graph}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported module."""
        form = model.data_as(LoggedModel).form
        assert form is not None
        model.module = ExportedModule(calls, form)
        return model

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw rows of the data if the signature names its columns; else draw rows of the input example.

        An example with fewer than 16 different rows gets a caution. Rows generated from the signature do not count as
        data (see `Family.calibration`).

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or the model has neither example nor signature.
        """
        columns = _columns(model)
        if rows := draw_rows(model, (*columns, _LABEL), len(columns), count * size, seed) if columns else []:
            inputs = [_typed(values, columns) for values in rows]
            batches = [signatures.stack_rows(inputs[start : start + size]) for start in range(0, len(inputs), size)]
            return [_tensors(batch, model) if _is_torch(model) else batch for batch in batches]
        example = _example(model, seed)
        if model.data_as(LoggedModel).is_made_up:
            return super().calibration(model, count, seed, size)
        different = signatures.different_rows(example)
        if len(different) < _FEWEST_ROWS:
            model.cautions.append(EXAMPLE_CALIBRATION.of())
        random.Random(seed).shuffle(different)  # noqa: S311  (nothing secret)
        chosen_rows = [different[index % len(different)] for index in range(count * size)]
        batches = [
            signatures.take(example, chosen_rows[start : start + size]) for start in range(0, len(chosen_rows), size)
        ]
        return [_tensors(batch, model) if _is_torch(model) else batch for batch in batches]

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read rows with the columns that the signature names, and `label`.

        Raises:
            RecipeError: the signature names no columns, or the data can't be read (see `datasets.read`).
        """
        columns = _columns(model)
        if not columns:
            raise RecipeError(
                "The model's signature names no columns, so no data can be matched with it: set data=none, or log the "
                "model with a data frame as its input example."
            )
        rows = scored(model, data, folder, (*columns, _LABEL), limit, seed)
        return [Sample(_typed(row.values, columns), str(row.values[_LABEL])) for row in rows]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Predict for rows: mappings of columns to values, or arrays; return a torch module's outputs as lists."""
        import torch

        rows = signatures.stack_rows(inputs)
        if _is_torch(model):
            with torch.inference_mode():
                output = model.module(*_tensors(rows, model))
            return list(value_trees.tensors(output)[0].tolist())
        return list(_rows_of(model.module.loaded.predict(rows)))

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the predictions as texts, like labels in a table; for scores of classes, the index of the highest.

        The answers of a torch module that returns scores of classes have these scores.
        """
        predictions = self.predict(model, inputs)
        labels = [_label(prediction) for prediction in predictions]
        if not _is_torch(model) or not _are_scores(predictions):
            return labels
        import torch

        logits = as_logits(torch.tensor(predictions, dtype=torch.float32)).numpy()
        classes = tuple(map(str, range(logits.shape[1])))
        return [Ranking([label], classes, row) for label, row in zip(labels, logits, strict=True)]

    def save(self, model: Model, folder: Path) -> None:
        """Copy the MLflow model; for a torch module, everything except its weights, and the module without them."""
        logged = model.data_as(LoggedModel)
        skipped = shutil.ignore_patterns(mlflow_folders.PICKLED) if _is_torch(model) else None
        require_own_files(logged.path)
        shutil.copytree(logged.path, folder / _COPY, ignore=skipped)
        output_form = None if logged.form is None else dataclasses.asdict(logged.form)
        changed = {"gives": output_form, "structure": model.structure}
        if changed := {name: value for name, value in changed.items() if value}:
            (folder / _CHANGED).write_text(json.dumps(changed), encoding="utf-8")
        if _is_torch(model) and logged.form is None:
            import torch

            torch.save(logged.empty, folder / _STRUCTURE)

    def restore(self, folder: Path) -> Model:
        """Load the copy, or the module without its weights."""
        if not (folder / _STRUCTURE).is_file():
            return self._opened(folder / _COPY, _COPY)
        import torch

        if not self.trust:
            raise RecipeError(
                f"Loading {folder / _STRUCTURE} runs the code in it. If you trust it, say so: {trust_word()}"
            )
        model = self.restore_assets(folder)
        with mlflow_folders.importable_code(folder / _COPY):
            model.module = torch.load(folder / _STRUCTURE, weights_only=False)
        model.data_as(LoggedModel).empty = _without_weights(model.module)  # before methods rebuild it
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Read the description of the copy."""
        changed = folder / _CHANGED
        changes = json.loads(changed.read_text(encoding="utf-8")) if changed.is_file() else {}
        form = CallForm.of_json(changes["gives"]) if "gives" in changes else None
        logged = LoggedModel(folder / _COPY, form=form)
        return Model(None, weights="local", structure=changes.get("structure", {}), family_data=logged)

    def _opened(self, path: Path, source: str) -> Model:
        """Load an MLflow model's folder."""
        self._require_trust(path, source)
        try:
            with mlflow_folders.unpickling(self.trust), mlflow_folders.importable_code(path):
                if mlflow_folders.find_pickle(path) is not None:
                    import mlflow.pytorch

                    module = mlflow.pytorch.load_model(str(path), map_location="cpu").eval().float()
                    module.requires_grad_(False)
                    logged = LoggedModel(path, empty=_without_weights(module))
                    return Model(module, weights="local", family_data=logged)
                import mlflow.pyfunc

                loaded = mlflow.pyfunc.load_model(str(path))
        except Exception as error:  # errors of MLflow, the flavor, or the model
            raise WeightsError(f"The MLflow model {source} can't be loaded: {named_line(error)}") from error
        logged = LoggedModel(path, reason=mlflow_folders.refusal_of(path))
        return Model(_opaque(loaded), weights="local", family_data=logged, runtime="mlflow")

    def _require_trust(self, path: Path, source: str) -> None:
        if not self.trust and (code := mlflow_folders.code_in(path)):
            raise RecipeError(
                f"Loading the MLflow model {source} may run its code: {code}. If you trust who logged it, say so: "
                f"{trust_word()}"
            )


def _opaque(loaded: Any) -> Any:
    """Wrap a model that is not a torch module into a module without parameters."""
    from torch import nn

    module = nn.Module()
    module.loaded = loaded
    return module.eval()


def _is_torch(model: Model) -> bool:
    return not hasattr(model.module, "loaded")


def _without_weights(module: Any) -> Any:
    """Copy a module, with its weights on the meta device."""
    import torch

    copies: dict[int, Any] = {}
    for tensor in module.state_dict(keep_vars=True).values():  # buffers that are not saved keep their values
        empty = tensor.to("meta")
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        copies[id(tensor)] = torch.nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return copy.deepcopy(module, copies)


def _example(model: Model, seed: int) -> Any:
    """Return the logged input example, or one generated from the signature."""
    logged = model.data_as(LoggedModel)
    if logged.example is None:
        described = mlflow_folders.describe(logged.path)
        example = described.load_input_example(str(logged.path))
        if example is None and described.signature is None:
            raise RecipeError(
                f"The MLflow model does not describe its input: log it with input_example=..., or with a signature "
                f"({logged.path / mlflow_folders.DESCRIPTION})."
            )
        logged.is_made_up = example is None
        logged.example = signatures.make_input(described.signature.inputs, seed) if example is None else example
    return logged.example


def _tensors(rows: Any, model: Model) -> list[Any]:
    """Convert rows to arguments of a torch module: tensors, with floating-point ones in the module's dtype."""
    import numpy as np
    import torch

    plain = rows.to_numpy() if hasattr(rows, "to_numpy") else rows
    arrays = list(plain.values()) if isinstance(plain, Mapping) else [plain]
    tensors = []
    for array in arrays:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        is_float = tensor.is_floating_point()
        tensors.append(tensor.to(model.device, (dtype_of(model.module) or torch.float32) if is_float else None))
    return tensors


def _columns(model: Model) -> dict[str, str]:
    """Return the types of the signature's columns, by name."""
    signature = mlflow_folders.describe(model.data_as(LoggedModel).path).signature
    if signature is None or signature.inputs is None or signature.inputs.is_tensor_spec():
        return {}
    return {str(spec.name): spec.type.name for spec in signature.inputs.inputs if spec.name is not None}


def _typed(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the columns, converted to the column's type."""
    return {name: signatures.typed_value(values[name], kind) for name, kind in columns.items()}


def _label(prediction: Any) -> str:
    if isinstance(prediction, list) and prediction:  # a torch module's output for one row
        is_score = len(prediction) > 1
        prediction = prediction.index(max(prediction)) if is_score else prediction[0]
    return str(int(prediction) if isinstance(prediction, float) and prediction.is_integer() else prediction)


def _are_scores(predictions: Sequence[Any]) -> bool:
    """Return whether each prediction has one number for each of several classes."""
    lengths = {len(prediction) if isinstance(prediction, list) else 0 for prediction in predictions}
    return (
        len(lengths) == 1
        and max(lengths) > 1
        and all(isinstance(number, float) for prediction in predictions for number in prediction)
    )


def _rows_of(output: Any) -> list[Any]:
    if hasattr(output, "iloc"):
        output = output.iloc[:, 0] if getattr(output, "ndim", 1) > 1 else output
    return list(output.tolist() if hasattr(output, "tolist") else output)


def _numbers(output: Any) -> Any:
    """Convert predictions to tensors."""
    import numpy as np
    import torch

    if isinstance(output, Mapping):
        return [_numbers(part) for part in output.values()]
    array = np.asarray(output.to_numpy() if hasattr(output, "to_numpy") else output)
    if array.dtype.kind not in "biuf":
        array = np.array([zlib.crc32(str(value).encode()) for value in array.ravel()])
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float64)))
