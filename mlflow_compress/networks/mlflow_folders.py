"""The folder of a model that MLflow wrote: what it is, and whether loading it may run code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from mlflow_compress.errors import WeightsError, named_line
from mlflow_compress.networks.exported_program_scan import code_in_program
from mlflow_compress.networks.onnx_files import require_own_weights

DESCRIPTION = "MLmodel"
PICKLED = "model.pth"  # what MLflow calls a torch model that is a pickle
_EXPORTED = "model.pt2"  # and one that is a graph
_MOST_BYTES = 10 * 2**20  # of a description
MAY_UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def locate(source: str, weights: str, folder: Path) -> Path:
    """Find the folder of the model: `weights`, if that was fetched from the server, else the source."""
    if weights in ("pretrained", "random"):
        raise WeightsError(f"An MLflow model comes with its weights: weights={weights} is not available for {source}.")
    path = folder / (source if weights == "auto" else weights)
    if not (path / DESCRIPTION).is_file():
        raise WeightsError(
            f"There is no MLflow model {source}: {path} has no file {DESCRIPTION}. Give models:/NAME/VERSION, "
            "runs:/ID/model, or the folder of a model."
        )
    return path


def describe(path: Path) -> Any:
    """Read what MLflow says of the model: its flavors, signature and example.

    Raises:
        WeightsError: it is no such description, or names files that are not the model's.
    """
    from mlflow.models import Model as Description

    file = path / DESCRIPTION
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        described: Any = Description.load(str(file))
        names = [*described.flavors.values(), described.saved_input_example_info or {}]
        if not all(isinstance(named, dict) for named in names):
            raise ValueError("its flavors are not mappings")
    except Exception as error:  # of YAML, and of MLflow for what is not as it writes it
        raise WeightsError(f"{file} can't be read: {named_line(error, 200)}") from error
    for name, value in names[-1].items():
        if "path" in name and not _is_own(value):
            raise WeightsError(f"{file} names an input example outside the model's folder: {value!r:.100}")
    return described


def _is_own(name: object) -> TypeGuard[str]:
    """Return whether a name is of something that lies in the model's folder itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def flavor_of(path: Path) -> str:
    """Name what loads the model: `mlflow.sklearn`."""
    return str(describe(path).flavors.get("python_function", {}).get("loader_module", "no python_function"))


def find_pickle(path: Path) -> Path | None:
    """Return the pickle of a torch module; None where the model is something else."""
    flavor = describe(path).flavors.get("pytorch")
    pickle = path / str((flavor or {}).get("model_data", "data")) / PICKLED
    return pickle if flavor is not None and pickle.is_file() else None


def code_in(path: Path) -> str:
    """Say what of a model may run code when it is loaded; empty if there is nothing.

    Of an ONNX file, and of a graph of torch.export, nothing does, unless there is more with it.

    Raises:
        WeightsError: it reads files that are not its own.
    """
    flavors = describe(path).flavors
    if any(flavor.get("code") for flavor in flavors.values()):
        return "Python code of its own"
    if find_pickle(path) is not None:
        return "a pickle of torch"
    loaded = flavors.get("python_function", {})
    data = loaded.get("data")
    if not _is_own(data) or not (path / data).exists():
        return f"what {flavor_of(path)} loads"  # from elsewhere than the others look
    if loaded.get("predict_fn", "predict") != "predict" or loaded.get("streamable"):
        return "a function that it names"
    if flavor_of(path) == "mlflow.onnx":
        return _code_in_onnx(path / data, flavors.get("onnx", {}))
    if flavor_of(path) == "mlflow.pytorch":
        return _code_in_graph(path / data)
    return f"what {flavor_of(path)} loads"


def _code_in_onnx(file: Path, flavor: Mapping[str, Any]) -> str:
    """Say what MLflow would load with an ONNX file: a provider with options may name a library."""
    providers = flavor.get("providers") or []
    options = flavor.get("onnx_session_options") or {}
    are_names = all(isinstance(provider, str) for provider in providers)
    if not file.is_file() or not are_names or options.get("extra_session_config"):
        return "libraries that its ONNX settings may name"
    require_own_weights(file)
    return ""


def _code_in_graph(folder: Path) -> str:
    """Say what MLflow would load from a folder of torch's: a pickle, unless there is none and a graph is."""
    graph = folder / _EXPORTED
    if (folder / PICKLED).exists() or not graph.is_file():
        return "a pickle of torch"
    return code_in_program(graph)


def refusal_of(path: Path) -> str:
    """Return why no method can change a model that is no pickled torch module."""
    flavor = flavor_of(path)
    if flavor == "mlflow.pytorch":
        return (
            "MLflow stored this torch model as a torch.export graph: log it with serialization_format='pickle' to "
            "compress it"
        )
    return f"methods change torch modules, but this is a model of {flavor}"


def is_unpickling_forbidden() -> bool:
    """Return whether the user told MLflow to unpickle nothing."""
    return os.environ.get(MAY_UNPICKLE, "").strip().lower() in ("false", "0")


@contextlib.contextmanager
def unpickling(is_allowed: bool) -> Iterator[None]:
    """Have MLflow itself refuse pickles too; where they are allowed, what the user told MLflow holds."""
    if is_allowed:
        yield
        return
    before = os.environ.get(MAY_UNPICKLE)
    os.environ[MAY_UNPICKLE] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[MAY_UNPICKLE]
        else:
            os.environ[MAY_UNPICKLE] = before


@contextlib.contextmanager
def importable_code(path: Path) -> Iterator[None]:
    """Let modules be imported that were logged with the model; they stay importable, as its code may import later."""
    for flavor in describe(path).flavors.values():
        if (code := flavor.get("code")) and str(path / code) not in sys.path:
            sys.path.insert(0, str(path / code))
    yield
