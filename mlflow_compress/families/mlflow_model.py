# ruff: noqa: RUF001  (Russian words of one letter are no typing mistakes)
"""Whatever a team has logged to MLflow: `models:/NAME/1`, `runs:/ID/model`, or the folder of an MLflow model."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.data.datasets import scored
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, named_line
from mlflow_compress.networks.export_graphs import Calls, dtype_of
from mlflow_compress.networks.exported_modules import ExportedModule, OutputForm, flattened, form_of, module_graph
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Graph, Mark, Model, Sample

EXAMPLE_CALIBRATION = CautionKind(
    "example_calibration",
    short={"en": "calibrated on one example", "ru": "калибровка на одном примере"},
    message={
        "en": "the method was calibrated on the model's own input example alone",
        "ru": "метод калиброван только на собственном примере входа модели",
    },
    advice={
        "en": "Its quality on other inputs may be far worse.",
        "ru": "На других входах его качество может быть намного хуже.",
    },
)
_COPY, _STRUCTURE, _CHANGED = "mlflow", "structure.pt", "changed.json"
_DESCRIPTION = "MLmodel"
_PICKLED, _EXPORTED = "model.pth", "model.pt2"  # what MLflow calls a torch model
_MAY_UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
_LABEL = "label"


@dataclass
class LoggedModel:
    """An MLflow model in a folder, and what was made of it.

    Attributes:
        path: the folder.
        reason: why no method can change it; empty of torch modules.
        empty: a torch module without its weights; None of others.
        form: of what an exported module gives; None of others.
        example: its input example, or what was made by its signature; None until it is asked for.
    """

    path: Path
    reason: str = ""
    empty: Any = None
    form: OutputForm | None = None
    example: Any = None


@dataclass
class MlflowModel(Family):
    """An MLflow model, called as its users call it.

    A torch module that was pickled (`serialization_format="pickle"`) is taken out of it, and methods apply to that; of
    any other model only the original is measured, with its library's memory, for it can't be told from the model's.

    Attributes:
        trust: whether to load a model that may hold code (any pickled one), which runs when it is loaded.
    """

    timed: ClassVar[str] = (
        "one predict() of the MLflow model, which checks its input too; of a pickled torch module, one forward pass. "
        "The input is the model's input example, repeated to the batch size, or made by its signature"
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    needs: ClassVar[tuple[str, ...]] = ("torch", "mlflow", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "mlflow.pyfunc", "safetensors.torch")
    takes_rows: ClassVar[bool] = True

    trust: bool = False

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the model (see `Family.load`).

        Raises:
            WeightsError: there is no such model, or it can't be loaded here.
            RecipeError: loading it may run code, and nobody said that this is wanted.
        """
        path = _locate(source, weights, folder)
        return self._opened(path, source)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Repeat the model's input example to `size` rows; without one, make rows of its signature's types.

        Raises:
            RecipeError: the model says nothing about its input.
            Unsupported: it is to run on a GPU, where only torch modules are brought.
        """
        if model.device != "cpu" and not _is_torch(model):
            raise Unsupported("MLflow runs this model where its library puts it: it is measured in its CPU run")
        rows = _repeated(_example(model, size, seed), size)
        return _tensors(rows, model) if _is_torch(model) else rows

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Predict, or call the module; gives what that gives."""
        return model.module(*batch) if _is_torch(model) else model.module.loaded.predict(batch)

    def forward(self, model: Model, batch: Any) -> Any:
        """Give the outputs as numbers: texts are told apart by their checksums."""
        output = self.run(model, batch, lambda stage: None)
        return output if _is_torch(model) else _numbers(output)

    def refuses(self, model: Model) -> str:
        """Say why no method applies to what is no torch module."""
        return "" if _is_torch(model) else model.data_as(LoggedModel).reason

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Give one graph, `model`: from `input_0` to what the module gives, for one batch size.

        Raises:
            Unsupported: it gives something else than tensors.
        """
        import torch

        inputs = self.batch(model, model.batch_size, 0)
        with torch.no_grad():
            output = model.module(*inputs)
        outputs = flattened(output)
        if not all(isinstance(each, torch.Tensor) for each in outputs):
            raise Unsupported("only a module that gives a tensor, or a tuple or dict of them, is exported")
        model.data_as(LoggedModel).form = form_of(output)
        names = [f"output_{index}" for index in range(len(outputs))]
        arguments = {f"input_{index}": tensor for index, tensor in enumerate(inputs)}
        return {"model": module_graph(model.module, arguments, names, {})}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Put the exported module in the module's place."""
        form = model.data_as(LoggedModel).form
        assert form is not None
        model.module = ExportedModule(calls, form)
        return model

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Give the input example again and again: the model brings no other data."""
        model.cautions.append(EXAMPLE_CALIBRATION.of())
        return [self.batch(model, size, seed + index) for index in range(count)]

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read rows of the columns that the signature names, and of `label`.

        Raises:
            RecipeError: the signature names no columns, or the data can't be read (see `datasets.read`).
        """
        columns = _columns(model)
        if not columns:
            raise RecipeError(
                "The model's signature names no columns, so no data can be matched with it: say data=none, or log the "
                "model with an input example that is a data frame."
            )
        rows = scored(model, data, folder, (*columns, _LABEL), limit, seed)
        return [
            Sample({name: _typed(row.values[name], kind) for name, kind in columns.items()}, str(row.values[_LABEL]))
            for row in rows
        ]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Predict for rows: mappings of columns to values, or arrays; of a torch module, its outputs as lists."""
        import numpy as np
        import torch

        if _is_torch(model):
            with torch.inference_mode():
                output = model.module(*_tensors(np.stack([np.asarray(each) for each in inputs]), model))
            return list(flattened(output)[0].tolist())
        return list(_rows_of(model.module.loaded.predict(_frame(inputs))))

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Give the predictions as texts, as labels in a table are."""
        found = self.predict(model, inputs)
        return [str(int(each) if isinstance(each, float) and each.is_integer() else each) for each in found]

    def save(self, model: Model, folder: Path) -> None:
        """Copy the MLflow model; of a torch module all but its weights, and the module without them."""
        logged = model.data_as(LoggedModel)
        skipped = shutil.ignore_patterns(_PICKLED) if _is_torch(model) else None
        shutil.copytree(logged.path, folder / _COPY, ignore=skipped)
        changed = {"gives": logged.form, "structure": model.structure}
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

        model = self.restore_assets(folder)
        self._require_trust(folder / _COPY, _COPY)
        with _own_code(folder / _COPY):
            model.module = torch.load(folder / _STRUCTURE, weights_only=False)
        return model

    def restore_assets(self, folder: Path) -> Model:
        """Read the description of the copy."""
        changed = folder / _CHANGED
        changes = json.loads(changed.read_text(encoding="utf-8")) if changed.is_file() else {}
        logged = LoggedModel(folder / _COPY, form=changes.get("gives"))
        return Model(None, weights="local", structure=changes.get("structure", {}), family_data=logged)

    def _opened(self, path: Path, source: str) -> Model:
        """Load an MLflow model's folder."""
        self._require_trust(path, source)
        try:
            with _unpickling(self.trust), _own_code(path):
                if _pickled(path) is not None:
                    import mlflow.pytorch

                    module = mlflow.pytorch.load_model(str(path), map_location="cpu").eval().float()
                    module.requires_grad_(False)
                    logged = LoggedModel(path, empty=_without_weights(module))
                    return Model(module, weights="local", family_data=logged)
                import mlflow.pyfunc

                loaded = mlflow.pyfunc.load_model(str(path))
        except Exception as error:  # MLflow's, the flavor's, the model's own
            what = f"{named_line(error)}"
            raise WeightsError(f"The MLflow model {source} can't be loaded: {what}") from error
        return Model(_opaque(loaded), weights="local", family_data=LoggedModel(path, reason=_reason(path)))

    def _require_trust(self, path: Path, source: str) -> None:
        if not self.trust and _may_hold_code(path):
            raise RecipeError(
                f"Loading the MLflow model {source} may run code that it holds ({_flavor(path)}). If you trust who "
                "logged it, say so: options: {trust: true} in the recipe, or --option trust=true."
            )


def _opaque(loaded: Any) -> Any:
    """Wrap a model that is no torch module into one without parameters."""
    from torch import nn

    module = nn.Module()
    module.loaded = loaded
    return module.eval()


def _is_torch(model: Model) -> bool:
    return not hasattr(model.module, "loaded")


# Where it is, and what it is


def _locate(source: str, weights: str, folder: Path) -> Path:
    """Find the folder of the model: `weights`, if that was fetched from the server, else the source."""
    if weights in ("pretrained", "random"):
        raise WeightsError(f"An MLflow model comes with its weights: weights={weights} can't be had of {source}.")
    path = folder / (source if weights == "auto" else weights)
    if not (path / _DESCRIPTION).is_file():
        raise WeightsError(
            f"There is no MLflow model {source}: {path} has no file {_DESCRIPTION}. Give models:/NAME/VERSION, "
            "runs:/ID/model, or the folder of a model."
        )
    return path


def _described(path: Path) -> Any:
    from mlflow.models import Model as Description

    return Description.load(str(path / _DESCRIPTION))


def _flavor(path: Path) -> str:
    """Name what loads the model: `mlflow.sklearn`."""
    return str(_described(path).flavors.get("python_function", {}).get("loader_module", "no python_function"))


def _pickled(path: Path) -> Path | None:
    """Give the pickle of a torch module; None where the model is something else."""
    flavor = _described(path).flavors.get("pytorch")
    pickle = path / str((flavor or {}).get("model_data", "data")) / _PICKLED
    return pickle if flavor is not None and pickle.is_file() else None


def _may_hold_code(path: Path) -> bool:
    """Say whether loading may run code of the model's: not that of ONNX, nor of a torch graph without a pickle."""
    flavors = _described(path).flavors
    if any(flavor.get("code") for flavor in flavors.values()):
        return True
    is_graph = _flavor(path) == "mlflow.pytorch" and _pickled(path) is None and bool(list(path.rglob(_EXPORTED)))
    return not is_graph and _flavor(path) != "mlflow.onnx"


def _reason(path: Path) -> str:
    flavor = _flavor(path)
    if flavor == "mlflow.pytorch":
        return (
            "MLflow keeps this torch model as a graph of torch.export: log it with serialization_format='pickle' to "
            "have it compressed"
        )
    return f"methods change torch modules, and this is a model of {flavor}"


@contextlib.contextmanager
def _unpickling(is_allowed: bool) -> Iterator[None]:
    """Have MLflow itself refuse pickles too, in versions that can."""
    before = os.environ.get(_MAY_UNPICKLE)
    os.environ[_MAY_UNPICKLE] = str(is_allowed).lower()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_MAY_UNPICKLE]
        else:
            os.environ[_MAY_UNPICKLE] = before


@contextlib.contextmanager
def _own_code(path: Path) -> Iterator[None]:
    """Let modules be imported that were logged with the model; they stay importable, as its code may import later."""
    for flavor in _described(path).flavors.values():
        if (code := flavor.get("code")) and str(path / code) not in sys.path:
            sys.path.insert(0, str(path / code))
    yield


def _without_weights(module: Any) -> Any:
    """Copy a module, with its weights on the meta device."""
    import torch

    kept: dict[int, Any] = {}
    for tensor in module.state_dict(keep_vars=True).values():  # buffers that are not saved stay as they are
        empty = tensor.to("meta")
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        kept[id(tensor)] = torch.nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return copy.deepcopy(module, kept)


# Inputs


def _example(model: Model, size: int, seed: int) -> Any:
    """Give the input example as logged, or what the signature says."""
    logged = model.data_as(LoggedModel)
    if logged.example is None:
        described = _described(logged.path)
        example = described.load_input_example(str(logged.path))
        if example is None and described.signature is None:
            raise RecipeError(
                f"The MLflow model says nothing about its input: log it with input_example=..., or with a signature "
                f"({logged.path / _DESCRIPTION})."
            )
        logged.example = _made(described.signature.inputs, seed) if example is None else example
    return logged.example


def _made(schema: Any, seed: int) -> Any:
    """Make one row of a signature's types."""
    import numpy as np

    generator = np.random.default_rng(seed)
    if schema.is_tensor_spec():
        made = {}
        for index, spec in enumerate(schema.inputs):
            shape = [1 if length < 0 else length for length in spec.shape]
            made[spec.name or str(index)] = generator.random(shape).astype(spec.type)
        return made if schema.has_input_names() else next(iter(made.values()))
    return _frame([{spec.name: _value(spec.type.name, generator) for spec in schema.inputs}])


def _value(kind: str, generator: Any) -> Any:
    if kind in ("double", "float"):
        return float(generator.random())
    if kind in ("integer", "long"):
        return int(generator.integers(0, 2))
    if kind == "boolean":
        return bool(generator.integers(0, 2))
    if kind == "string":
        return "text"
    raise RecipeError(f"No input of type {kind} can be made up: log the model with input_example=...")


def _repeated(example: Any, size: int) -> Any:
    """Take the first rows of an example, and again from its beginning where it has too few.

    Raises:
        RecipeError: it is not made of rows.
    """
    import numpy as np

    if hasattr(example, "iloc"):
        return example.iloc[[index % len(example) for index in range(size)]].reset_index(drop=True)
    if isinstance(example, Mapping):
        return {name: _repeated(each, size) for name, each in example.items()}
    if isinstance(example, np.ndarray) and example.ndim:
        return example[[index % len(example) for index in range(size)]]
    if isinstance(example, list):
        return [example[index % len(example)] for index in range(size)]
    if size == 1:
        return example
    raise RecipeError(f"The input example, a {type(example).__name__}, has no rows to make a batch of {size} of.")


def _tensors(rows: Any, model: Model) -> list[Any]:
    """Make the arguments of a torch module of rows: tensors, of floating-point numbers in the module's type."""
    import numpy as np
    import torch

    plain = rows.to_numpy() if hasattr(rows, "to_numpy") else rows
    arrays = list(plain.values()) if isinstance(plain, Mapping) else [plain]
    made = []
    for array in arrays:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        is_float = tensor.is_floating_point()
        made.append(tensor.to(model.device, (dtype_of(model.module) or torch.float32) if is_float else None))
    return made


def _frame(rows: Sequence[Any]) -> Any:
    import numpy as np
    import pandas as pd

    if rows and isinstance(rows[0], Mapping):
        return pd.DataFrame(list(rows))
    return np.stack([np.asarray(each) for each in rows])


def _columns(model: Model) -> dict[str, str]:
    """Give the types of the signature's columns, by name."""
    signature = _described(model.data_as(LoggedModel).path).signature
    if signature is None or signature.inputs is None or signature.inputs.is_tensor_spec():
        return {}
    return {str(spec.name): spec.type.name for spec in signature.inputs.inputs if spec.name is not None}


def _typed(value: Any, kind: str) -> Any:
    """Make a value of a table, which may be text, one of a column's type."""
    try:
        if kind in ("double", "float"):
            return float(value)
        if kind in ("integer", "long"):
            return int(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{value!r} is no {kind}, which the model's signature asks for.") from error
    if kind == "boolean" and isinstance(value, str):
        return value.lower() in ("true", "1", "yes")
    return value


# Outputs


def _rows_of(output: Any) -> list[Any]:
    if hasattr(output, "iloc"):
        output = output.iloc[:, 0] if getattr(output, "ndim", 1) > 1 else output
    return list(output.tolist() if hasattr(output, "tolist") else output)


def _numbers(output: Any) -> Any:
    """Make tensors of what a prediction is."""
    import numpy as np
    import torch

    if isinstance(output, Mapping):
        return [_numbers(each) for each in output.values()]
    array = np.asarray(output.to_numpy() if hasattr(output, "to_numpy") else output)
    if array.dtype.kind not in "biuf":
        array = np.array([zlib.crc32(str(each).encode()) for each in array.ravel()])
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float64)))
