"""Model folders that MLflow wrote: what they contain, and whether loading them may run code."""

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
PICKLED = "model.pth"  # MLflow's name for a pickled torch model
_EXPORTED = "model.pt2"  # MLflow's name for an exported torch graph
_MOST_BYTES = 10 * 2**20  # size of a description
MAY_UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def locate(source: str, weights: str, folder: Path) -> Path:
    """Return the folder of the model: `weights` if it was fetched from the server, else the source."""
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
    """Read MLflow's description of the model: its flavors, signature and example.

    Raises:
        WeightsError: the description is invalid, or names files outside the model.
    """
    from mlflow.models import Model as Description

    file = path / DESCRIPTION
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        described: Any = Description.load(str(file))
        names = [*described.flavors.values(), described.saved_input_example_info or {}]
        if not all(isinstance(settings, dict) for settings in names):
            raise ValueError("its flavors are not mappings")
    except Exception as error:  # from YAML, or from MLflow for unexpected content
        raise WeightsError(f"{file} can't be read: {named_line(error, 200)}") from error
    for name, value in names[-1].items():
        if "path" in name and not _is_own(value):
            raise WeightsError(f"{file} names an input example outside the model's folder: {value!r:.100}")
    return described


def _is_own(name: object) -> TypeGuard[str]:
    """Return whether a name is that of an entry in the model's folder itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def flavor_of(path: Path) -> str:
    """Return the module that loads the model: `mlflow.sklearn`."""
    return str(describe(path).flavors.get("python_function", {}).get("loader_module", "no python_function"))


def find_pickle(path: Path) -> Path | None:
    """Return the pickle of a torch module; None for other models."""
    flavor = describe(path).flavors.get("pytorch")
    pickle = path / str((flavor or {}).get("model_data", "data")) / PICKLED
    return pickle if flavor is not None and pickle.is_file() else None


def code_in(path: Path) -> str:
    """Name the part of a model that may run code when it is loaded; empty if there is none.

    An ONNX file or a torch.export graph alone runs no code.

    Raises:
        WeightsError: it reads files outside the model.
    """
    flavors = describe(path).flavors
    if any(flavor.get("code") for flavor in flavors.values()):
        return "its own Python code"
    if find_pickle(path) is not None:
        return "a pickle of torch"
    loaded = flavors.get("python_function", {})
    data = loaded.get("data")
    if not _is_own(data) or not (path / data).exists():
        return f"files that {flavor_of(path)} loads"  # from another place than checked below
    if loaded.get("predict_fn", "predict") != "predict" or loaded.get("streamable"):
        return "a function named in MLmodel"
    if flavor_of(path) == "mlflow.onnx":
        return _code_in_onnx(path / data, flavors.get("onnx", {}))
    if flavor_of(path) == "mlflow.pytorch":
        return _code_in_graph(path / data)
    return f"files that {flavor_of(path)} loads"


def _code_in_onnx(file: Path, flavor: Mapping[str, Any]) -> str:
    """Name code that MLflow would load with an ONNX file: a provider with options may name a library."""
    providers = flavor.get("providers") or []
    options = flavor.get("onnx_session_options") or {}
    are_names = all(isinstance(provider, str) for provider in providers)
    if not file.is_file() or not are_names or options.get("extra_session_config"):
        return "libraries in its ONNX settings"
    require_own_weights(file)
    return ""


def _code_in_graph(folder: Path) -> str:
    """Name code in a folder of MLflow's pytorch flavor: a pickle, or code in a graph."""
    graph = folder / _EXPORTED
    if (folder / PICKLED).exists() or not graph.is_file():
        return "a pickle of torch"
    return code_in_program(graph)


def refusal_of(path: Path) -> str:
    """Return why methods can't change a model that is not a pickled torch module."""
    flavor = flavor_of(path)
    if flavor == "mlflow.pytorch":
        return (
            "MLflow stored this torch model as a torch.export graph: log it with serialization_format='pickle' to "
            "compress it"
        )
    return f"methods change torch modules, but this is a model of {flavor}"


def is_unpickling_forbidden() -> bool:
    """Return whether the user forbade MLflow to load pickles."""
    return os.environ.get(MAY_UNPICKLE, "").strip().lower() in ("false", "0")


@contextlib.contextmanager
def unpickling(is_allowed: bool) -> Iterator[None]:
    """Make MLflow itself reject pickles too; if they are allowed, the user's setting for MLflow applies."""
    if is_allowed:
        yield
        return
    old_value = os.environ.get(MAY_UNPICKLE)
    os.environ[MAY_UNPICKLE] = "false"
    try:
        yield
    finally:
        if old_value is None:
            del os.environ[MAY_UNPICKLE]
        else:
            os.environ[MAY_UNPICKLE] = old_value


@contextlib.contextmanager
def importable_code(path: Path) -> Iterator[None]:
    """Make the modules logged with the model importable, also afterwards, because its code may import them later."""
    for flavor in describe(path).flavors.values():
        if (code := flavor.get("code")) and str(path / code) not in sys.path:
            sys.path.insert(0, str(path / code))
    yield
