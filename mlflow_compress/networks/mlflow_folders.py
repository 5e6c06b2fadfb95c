"""The folder of a model that MLflow wrote: what it is, and whether loading it may run code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WeightsError

DESCRIPTION = "MLmodel"
PICKLED = "model.pth"  # what MLflow calls a torch model that is a pickle
_EXPORTED = "model.pt2"  # and one that is a graph
_MAY_UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def locate(source: str, weights: str, folder: Path) -> Path:
    """Find the folder of the model: `weights`, if that was fetched from the server, else the source."""
    if weights in ("pretrained", "random"):
        raise WeightsError(f"An MLflow model comes with its weights: weights={weights} can't be had of {source}.")
    path = folder / (source if weights == "auto" else weights)
    if not (path / DESCRIPTION).is_file():
        raise WeightsError(
            f"There is no MLflow model {source}: {path} has no file {DESCRIPTION}. Give models:/NAME/VERSION, "
            "runs:/ID/model, or the folder of a model."
        )
    return path


def describe(path: Path) -> Any:
    """Read what MLflow says of the model: its flavors, signature and example."""
    from mlflow.models import Model as Description

    return Description.load(str(path / DESCRIPTION))


def flavor_of(path: Path) -> str:
    """Name what loads the model: `mlflow.sklearn`."""
    return str(describe(path).flavors.get("python_function", {}).get("loader_module", "no python_function"))


def find_pickle(path: Path) -> Path | None:
    """Return the pickle of a torch module; None where the model is something else."""
    flavor = describe(path).flavors.get("pytorch")
    pickle = path / str((flavor or {}).get("model_data", "data")) / PICKLED
    return pickle if flavor is not None and pickle.is_file() else None


def may_hold_code(path: Path) -> bool:
    """Return whether loading may run code of the model's: not that of ONNX, nor of a torch graph without a pickle."""
    flavors = describe(path).flavors
    if any(flavor.get("code") for flavor in flavors.values()):
        return True
    is_graph = flavor_of(path) == "mlflow.pytorch" and find_pickle(path) is None and bool(list(path.rglob(_EXPORTED)))
    return not is_graph and flavor_of(path) != "mlflow.onnx"


def refusal_of(path: Path) -> str:
    """Return why no method can change a model that is no pickled torch module."""
    flavor = flavor_of(path)
    if flavor == "mlflow.pytorch":
        return (
            "MLflow keeps this torch model as a graph of torch.export: log it with serialization_format='pickle' to "
            "have it compressed"
        )
    return f"methods change torch modules, and this is a model of {flavor}"


@contextlib.contextmanager
def unpickling(is_allowed: bool) -> Iterator[None]:
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
def importable_code(path: Path) -> Iterator[None]:
    """Let modules be imported that were logged with the model; they stay importable, as its code may import later."""
    for flavor in describe(path).flavors.values():
        if (code := flavor.get("code")) and str(path / code) not in sys.path:
            sys.path.insert(0, str(path / code))
    yield
