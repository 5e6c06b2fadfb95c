"""Runs a user's own Python file as a module, and calls its functions."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.files import sha256
from mlflow_compress.networks import modules_beside
from mlflow_compress.networks.exported_modules import CallForm
from mlflow_compress.networks.module_calls import Passing
from mlflow_compress.networks.opened_files import State, watched
from mlflow_compress.networks.outside_state import Values
from mlflow_compress.networks.own_samples import Guide
from mlflow_compress.networks.random_state import seed_all

_moving = threading.Lock()
_stays: list[Path] = []  # the original working folder, then the folders entered since; the last is the current one
NOT_RESTORED = (
    "load_weights",
    "samples",
    "training",
    "training_labels",
    "loss",
)  # functions whose files a restored model does not need


@dataclass(frozen=True)
class Built:
    """The call that builds an architecture: the name of a function, and its arguments."""

    function: str
    arguments: list[Any]


@dataclass
class OwnCode:
    """A user's file, and how its module was built and filled.

    Attributes:
        code: the file, run as a module.
        path: path of the file.
        built: the call that built the architecture; None: the function in the options, without arguments.
        function: name of the function that builds the architecture of the model itself.
        form: form of arguments and output of an exported module; None for others.
        seed: seed for random numbers while the architecture is built.
        opened: files that the code read so far, with their states.
        read_when_run: those that it read while the file itself ran.
        read_to_build: those that it read until the architecture was first built; None: not built yet.
        noted: functions whose files were recorded.
        filled_from: files that `load_weights` read; None: it was not called.
        outside: values that `load_weights` set outside the state dict (see `outside_state`).
        lost: names of values that it set there and that can't be saved.
        is_restored: whether it is the copy in a model folder, whose files do not change.
        passing: how the module is called on the output of `batch`; None: not known yet.
        guide: the structure of the arguments, to batch samples; None: not known yet.
        has_one_label: whether the reference of each sample is one number or text; None: not known yet.
    """

    code: ModuleType
    path: Path
    built: Built | None = None
    function: str = "model"
    form: CallForm | None = None
    seed: int = 0
    opened: dict[str, State] = field(default_factory=dict)
    read_when_run: frozenset[str] = frozenset()
    read_to_build: frozenset[str] | None = None
    noted: set[str] = field(default_factory=set)
    filled_from: frozenset[str] | None = None
    outside: Values = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    is_restored: bool = False
    passing: Passing | None = None
    guide: Guide | None = None
    has_one_label: bool | None = None


def came_with_us(path: Path) -> bool:
    """Return whether a file is code of a recipe in this package, or a copy with the same name."""
    package = Path(__file__).parents[1]
    originals = (folder / "recipes" / path.name for folder in (package, package.parent))
    return any(original.is_file() and original.read_bytes() == path.read_bytes() for original in originals)


def run_file(path: Path) -> ModuleType:
    """Run the user's file as a separate module. It may import modules beside it, unless it is one of our recipes.

    Our recipes run without trust, wherever a copy is: files beside the copy may be from others.

    Raises:
        RecipeError: the file does not exist, or raises.
    """
    if not path.is_file():
        raise RecipeError(f"There is no file {path}.")
    path = path.absolute()
    name = f"mlflow_compress_user_{sha256(path)[:12]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=modules_beside.Uncached(name, str(path)))
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path} is not a Python file.")
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code
    modules_beside.allow(path, is_alone=came_with_us(path))
    try:
        with at_home(path):
            spec.loader.exec_module(code)
    except Exception as error:
        raise RecipeError(f"{path} can't be run: {type(error).__name__}: {error}") from error
    return code


@contextlib.contextmanager
def at_home(path: Path) -> Iterator[None]:
    """Work in the folder of a user's file, the base of its relative paths, with the modules beside it.

    With several threads, the process returns to its original folder when the last one is done.
    """
    with _moving:
        if not _stays:
            _stays.append(Path.cwd())
        _stays.append(path.parent)
        os.chdir(path.parent)
    try:
        with modules_beside.present(path):
            yield
    finally:
        with _moving:
            del _stays[len(_stays) - 1 - _stays[::-1].index(path.parent)]
            os.chdir(_stays[-1])
            if len(_stays) == 1:
                _stays.clear()


def loaded(path: Path, seed: int, is_restored: bool = False) -> OwnCode:
    """Run a user's file, and record the files that it reads.

    Raises:
        RecipeError: see `run_file`.
    """
    own = OwnCode(ModuleType(""), path.absolute(), seed=seed, is_restored=is_restored)
    seed_all(seed)
    with _noted(own):
        own.code = run_file(own.path)
    own.read_when_run = frozenset(own.opened)
    return own


def at_source(own: OwnCode, source: Path | None) -> OwnCode:
    """Return the user's original file instead of its restored copy, because the data beside it was not copied.

    Args:
        own: the code.
        source: path of the original file; None: not known.
    """
    if not own.is_restored or source is None or not source.is_file() or sha256(source) != sha256(own.path):
        return own
    return loaded(source, own.seed, is_restored=True)


def build(own: OwnCode, function: str) -> Any:
    """Build the architecture with the function of this name; if the model is a student, with the call that built it."""
    built = own.built or Built(function, [])
    builder = defined(own, built.function)
    own.function = function
    seed_all(own.seed)
    module = builder(*built.arguments)
    if own.read_to_build is None:
        own.read_to_build = frozenset(own.opened)
    return module


def defined(own: OwnCode, name: str) -> Callable[..., Any]:
    """Return the function of this name, wrapped to work in its file's folder.

    The files of its first call are recorded, if a restored model calls it too.

    Raises:
        RecipeError: the file does not define it.
    """
    function = getattr(own.code, name, None)
    if not callable(function):
        raise RecipeError(f"{own.path} defines no function {name}().")

    def called(*arguments: Any) -> Any:
        is_noted = name in own.noted or name in NOT_RESTORED
        own.noted.add(name)
        with at_home(own.path), contextlib.nullcontext() if is_noted else _noted(own):
            output = function(*arguments)
            return list(output) if inspect.isgenerator(output) else output  # a generator would run later, elsewhere

    return called


@contextlib.contextmanager
def _noted(own: OwnCode) -> Iterator[None]:
    """Record the files that are read meanwhile; not for a restored model, where this would only cost time."""
    if own.is_restored:
        yield
        return
    with watched() as watch:
        yield
    own.opened |= watch.settled()
