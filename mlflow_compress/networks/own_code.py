"""A user's own Python code: run as a module, asked for what it defines, and filled through a cache."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mlflow_compress.cache_folders import cache_folder
from mlflow_compress.errors import RecipeError
from mlflow_compress.files import sha256, whole_folder
from mlflow_compress.networks.exported_modules import OutputForm
from mlflow_compress.networks.stored_weights import load_weights, save_weights


@dataclass(frozen=True)
class Built:
    """The call that builds an architecture: a function's name, and what it is given."""

    function: str
    arguments: list[Any]


@dataclass
class OwnCode:
    """A user's file, and what was made of its module.

    Attributes:
        code: the file, run as a module.
        path: where it is.
        built: what built the architecture; None: the function that the options name, without arguments.
        form: of what an exported module gives; None of others.
    """

    code: ModuleType
    path: Path
    built: Built | None = None
    form: OutputForm | None = None


def came_with_us(path: Path) -> bool:
    """Return whether a file is the code of a recipe of this package."""
    package = Path(__file__).parents[1]
    ours = (folder / "recipes" / path.name for folder in (package, package.parent))
    return any(each.is_file() and each.read_bytes() == path.read_bytes() for each in ours)


def run_file(path: Path) -> ModuleType:
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


def build(own: OwnCode, function: str) -> Any:
    """Build the architecture with the function of this name, or as the student that the model is was built."""
    built = own.built or Built(function, [])
    return defined(own, built.function)(*built.arguments)


def defined(own: OwnCode, name: str) -> Any:
    """Return the function of this name.

    Raises:
        RecipeError: the file defines none.
    """
    function = getattr(own.code, name, None)
    if not callable(function):
        raise RecipeError(f"{own.path} defines no function {name}().")
    return function


def fill_cached(module: Any, own: Any, path: Path, seed: int) -> None:
    """Call the user's `load_weights` once for each version of the file and seed, and keep what it gave."""
    import torch

    folder = cache_folder("weights") / f"{path.stem}-{_digest(path)}-{seed}-torch{torch.__version__}"
    if folder.is_dir():
        load_weights(module, folder)
        return
    own(module)
    with whole_folder(folder) as aside:
        save_weights(module, aside)


def _digest(path: Path) -> str:
    return sha256(path)[:12]
