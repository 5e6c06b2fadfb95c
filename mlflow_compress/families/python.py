"""One's own `torch.nn.Module`, from a function in one's own file.

The file is Python code of the user's. It defines:

* `model()`: build the architecture and give the module. Options may name another function.
* `batch(size)`: give the inputs of one timed call: a tensor, or a tuple of tensors for several arguments.
* `load_weights(module)`, optional: fill the module, from a checkpoint or by training it. What it gives is cached.
* `samples()`, optional: give the labelled samples that were never trained on, as pairs (input, reference).
* `predict(module, inputs)`, optional: give one prediction per input. Without it, the inputs are stacked, and the index
  of the greatest output is the prediction.
* `metrics`, optional: the names of the metrics that score it (default: accuracy).

The file stands alone: it is copied into the model's folder, so that the model can be restored without the rest.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.sockets import Family, Mark, Model, Sample
from mlflow_compress.tensors import fill, load_weights, read_state, save_weights

_COPY = "model.py"


@dataclass
class Python(Family):
    """A module of the user's own.

    Attributes:
        function: the function that builds the architecture.
    """

    timed: ClassVar[str] = "one call of the module on the tensors that the file's batch() gives, already on the device"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    needs: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "safetensors.torch")

    function: str = "model"

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Build the module and fill it: by `load_weights`, from its cache, or from a path (see `Family.load`)."""
        import torch

        path = folder / source
        code = _run_file(path)
        torch.manual_seed(seed)
        module = _function(code, self.function, path)()
        if not isinstance(module, torch.nn.Module):
            raise RecipeError(f"{path}: {self.function}() gave a {type(module).__name__}, not a torch.nn.Module.")
        own = getattr(code, "load_weights", None)
        kind: Any = "random"
        if weights not in ("auto", "pretrained", "random"):
            if not (folder / weights).is_file():
                raise WeightsError(f"There is no weights file {folder / weights}.")
            fill(module, read_state(folder / weights), folder / weights)
            kind = "local"
        elif weights == "pretrained" and own is None:
            raise WeightsError(f"{path} defines no load_weights(module). Define it, or give weights=PATH.")
        elif weights != "random" and own is not None:
            _fill_cached(module, own, path, seed)
            kind = "local"
        module.requires_grad_(False)
        module.eval()
        return Model(module, {"code": code, "path": path}, weights=kind)

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Take the inputs from the file's `batch`, and move floating-point ones to the module's dtype."""
        import torch

        torch.manual_seed(seed)
        inputs = _function(model.assets["code"], "batch", model.assets["path"])(size)
        inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        return [_placed(tensor, model) for tensor in inputs]

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Call the module; gives what it gives."""
        return model.module(*batch)

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Take the file's own labelled samples; `data` can only be `own`."""
        if data != "own":
            raise RecipeError(
                f"A model of one's own brings its samples in its file: say data=own or none, not {data!r}."
            )
        pairs = list(_function(model.assets["code"], "samples", model.assets["path"])())
        if limit is not None and limit < len(pairs):
            pairs = random.Random(seed).sample(pairs, limit)  # noqa: S311  (nothing secret)
        return [Sample(inputs, reference) for inputs, reference in pairs]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Predict with the file's `predict`, or by the greatest output."""
        import torch

        own = getattr(model.assets["code"], "predict", None)
        with torch.inference_mode():
            if own is not None:
                return list(own(model.module, inputs))
            stacked = torch.stack([torch.as_tensor(each) for each in inputs])
            output = model.module(_placed(stacked, model))
            return list(output.argmax(-1).tolist())

    def save(self, model: Model, folder: Path) -> None:
        """Copy the file."""
        shutil.copyfile(model.assets["path"], folder / _COPY)

    def restore(self, folder: Path) -> Model:
        """Build the module anew from the copied file."""
        path = folder / _COPY
        code = _run_file(path)
        return Model(_function(code, self.function, path)(), {"code": code, "path": path}, weights="local")


def _run_file(path: Path) -> Any:
    """Run the user's file as a module of its own.

    Raises:
        RecipeError: there is no such file, or it raises.
    """
    if not path.is_file():
        raise RecipeError(f"There is no file {path}.")
    name = f"mlflow_compress_user_{_digest(path)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path} is no Python file.")
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code
    try:
        spec.loader.exec_module(code)
    except Exception as error:
        raise RecipeError(f"{path} can't be run: {type(error).__name__}: {error}") from error
    return code


def _function(code: Any, name: str, path: Path) -> Any:
    found = getattr(code, name, None)
    if not callable(found):
        raise RecipeError(f"{path} defines no function {name}().")
    return found


def _fill_cached(module: Any, own: Any, path: Path, seed: int) -> None:
    """Call the user's `load_weights` once for each version of the file and seed, and keep what it gave."""
    import torch

    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mlflow-compress", "weights")
    folder = root / f"{path.stem}-{_digest(path)}-{seed}-torch{torch.__version__}"
    if folder.is_dir():
        load_weights(module, folder)
        return
    own(module)
    aside = root / f"{folder.name}.{os.getpid()}"
    aside.mkdir(parents=True, exist_ok=True)
    save_weights(module, aside)
    try:
        aside.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(aside)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _placed(tensor: Any, model: Model) -> Any:
    parameter = next(iter(model.module.parameters()), None)
    if tensor.is_floating_point() and parameter is not None and parameter.is_floating_point():
        return tensor.to(model.device, parameter.dtype)
    return tensor.to(model.device)
