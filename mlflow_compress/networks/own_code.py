"""A user's own Python code: run as a module, and asked for what it defines."""

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
_stays: list[Path] = []  # where the process was, then the folders that it works in; the last is where it is
NOT_RESTORED = ("load_weights", "samples", "training")  # functions whose files a restored model does not need


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
        function: the name of the function that builds the architecture, where it is the model itself.
        form: of what an exported module takes and gives; None of others.
        seed: of what is drawn while the architecture is built.
        opened: the files that it read while it was run, built its architecture, or was used; and their state.
        read_when_run: those of them that it read while the file itself was run.
        read_to_build: those that it read until the architecture was built first; None: it is not yet.
        noted: the functions that were called meanwhile.
        filled_from: the files that `load_weights` read; None: it was not called.
        outside: what `load_weights` set outside of the state dict (see `outside_state`).
        lost: names of what it set there and can't be saved.
        is_restored: whether it is the copy in a model folder, whose files nobody changes.
        passing: how the module is called on what the file's `batch` gives; None: not known yet.
        guide: what arguments look like, for samples; None: not known yet.
        has_one_label: whether each sample's reference is one number or text; None: not known.
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
    """Return whether a file is the code of a recipe of this package, or a copy of it under the same name."""
    package = Path(__file__).parents[1]
    ours = (folder / "recipes" / path.name for folder in (package, package.parent))
    return any(each.is_file() and each.read_bytes() == path.read_bytes() for each in ours)


def run_file(path: Path) -> ModuleType:
    """Run the user's file as a module of its own. It may import what lies beside it, unless it came with us.

    What came with us runs without trust, wherever a copy of it lies: what lies beside that may be a stranger's.

    Raises:
        RecipeError: there is no such file, or it raises.
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
    """Work in the folder of a user's file, from which the paths in it start, with the modules that lie beside it.

    Threads that do so at once leave the process where it was when the last one is done.
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
    """Run a user's file, and note which files it reads.

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
    """Return the user's own file instead of its restored copy: the data beside it was not copied.

    Args:
        own: the code.
        source: where the file was; None: not known.
    """
    if not own.is_restored or source is None or not source.is_file() or sha256(source) != sha256(own.path):
        return own
    return loaded(source, own.seed, is_restored=True)


def build(own: OwnCode, function: str) -> Any:
    """Build the architecture with the function of this name, or as the student that the model is was built."""
    built = own.built or Built(function, [])
    builder = defined(own, built.function)
    own.function = function
    seed_all(own.seed)
    module = builder(*built.arguments)
    if own.read_to_build is None:
        own.read_to_build = frozenset(own.opened)
    return module


def defined(own: OwnCode, name: str) -> Callable[..., Any]:
    """Return the function of this name; called, it works in its file's folder.

    What it reads the first time is noted, where it is called for a restored model too.

    Raises:
        RecipeError: the file defines none.
    """
    function = getattr(own.code, name, None)
    if not callable(function):
        raise RecipeError(f"{own.path} defines no function {name}().")

    def called(*arguments: Any) -> Any:
        is_noted = name in own.noted or name in NOT_RESTORED
        own.noted.add(name)
        with at_home(own.path), contextlib.nullcontext() if is_noted else _noted(own):
            given = function(*arguments)
            return list(given) if inspect.isgenerator(given) else given  # it would be run later, and elsewhere

    return called


@contextlib.contextmanager
def _noted(own: OwnCode) -> Iterator[None]:
    """Note which files are read meanwhile; not of a restored model, where this would cost time and tell nothing."""
    if own.is_restored:
        yield
        return
    with watched() as watch:
        yield
    own.opened |= watch.settled()
