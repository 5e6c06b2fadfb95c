"""Lets a user's file, and no other code, import the modules beside it: `sys.path` stays unchanged.

Files in several folders may have helpers with the same name. `sys.modules` holds those of the folder whose code runs.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from mlflow_compress.networks.code_files import PACKAGE, imported, is_own


class Uncached(importlib.machinery.SourceFileLoader):
    """Runs a Python file as it is now, never older compiled code with the same date and size."""

    def path_stats(self, path: object) -> dict[str, object]:
        """Raise, so that no compiled code counts as current."""
        raise OSError(path)


class _Finder:
    """Finds modules beside the file that imports them. The folder of the file comes first, as under `python FILE`."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.alone: set[Path] = set()  # files that may not import modules beside them
        self.served: dict[str, Path] = {}  # top-level names in `sys.modules`, and their folders

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module for a file in one of the folders; None for other files, standard modules and this package."""
        if path is not None or name in sys.stdlib_module_names or name == PACKAGE.name:
            return None
        if (folder := self._folder_of_importer()) is None:
            return None
        spec = PathFinder.find_spec(name, [str(folder)])
        is_folder = spec is not None and spec.loader is None  # without __init__.py: an installed package comes first
        if spec is None or (is_folder and PathFinder.find_spec(name) is not None):
            return None
        if type(spec.loader) is importlib.machinery.SourceFileLoader and spec.origin is not None:
            spec.loader = Uncached(name, spec.origin)
        self.served[name] = folder
        return spec

    def _folder_of_importer(self) -> Path | None:
        frame = sys._getframe(2)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            if frame.f_back is None:
                return None
            frame = frame.f_back
        file = Path(frame.f_code.co_filename)
        if file in self.alone:
            return None
        holders = [folder for folder in self.folders if is_own(file, folder)]
        return max(holders, key=lambda folder: len(folder.parts), default=None)


_finder = _Finder()
_kept: dict[Path, dict[str, ModuleType]] = {}  # by folder: its modules, by name
_tops: dict[Path, set[str]] = {}  # by file: top-level names of its imports from its folder


def allow(path: Path, is_alone: bool = False) -> None:
    """Allow a file, and the modules beside it, to import from its folder. The modules of the folder run again.

    Args:
        path: the file, absolute.
        is_alone: whether it may import nothing from there.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if is_alone:
        _finder.alone.add(path)
    else:
        _finder.alone.discard(path)
        if path.parent not in _finder.folders:
            _finder.folders.append(path.parent)
    imports = () if is_alone else imported(path)
    _tops[path] = {file.relative_to(path.parent).parts[0].removesuffix(".py") for file in imports}
    _put_away()
    _kept.pop(path.parent, None)


@contextlib.contextmanager
def present(path: Path) -> Iterator[None]:
    """Put the modules of a file's folder into `sys.modules` meanwhile, instead of others with their names.

    The folder's modules stay there afterwards, for code that looks up the module of a class. Modules of others with the
    same names come back: the program that loads a model may have a helper with the same name as the model's.
    """
    folder = path.parent
    if set(_finder.served.values()) != {folder}:
        _put_away()
    modules = _kept.setdefault(folder, {})
    tops = {name.partition(".")[0] for name in modules} | _tops.get(path, set())
    foreign = {
        name
        for name in tops - _finder.served.keys()
        if name in sys.modules and not _is_there(sys.modules[name], folder)
    }
    names = [name for name in sys.modules if name.partition(".")[0] in foreign] if foreign else []
    same_names = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(modules)
    _finder.served.update(dict.fromkeys((name.partition(".")[0] for name in modules), folder))
    try:
        yield
    finally:
        if same_names:
            _put_away()
            sys.modules.update(same_names)


def _put_away() -> None:
    """Take all modules of the folders out of `sys.modules`, and keep them for their folders."""
    folders = {
        name: folder
        for name, folder in _finder.served.items()
        if name in sys.modules and _comes_from(sys.modules[name], folder)  # not replaced by a module of others
    }
    names = [name for name in sys.modules if name.partition(".")[0] in folders] if folders else []
    for name in names:
        _kept.setdefault(folders[name.partition(".")[0]], {})[name] = sys.modules.pop(name)
    _finder.served.clear()


def modules_from(folder: Path) -> list[ModuleType]:
    """Return the imported modules that come from Python files in a folder."""
    candidates = [*sys.modules.values(), *_kept.get(folder, {}).values()]
    files = [(module, file) for module in candidates if isinstance(file := _file_of(module), str)]
    near = [(module, file) for module, file in files if folder.name in file]  # of thousands: a path takes long to make
    modules = (module for module, file in near if file.endswith(".py") and is_own(Path(file), folder))
    return list({id(module): module for module in modules}.values())


def loaded_from(folder: Path) -> list[Path]:
    """Return the Python files in a folder that imported modules come from."""
    return [Path(str(_file_of(module))) for module in modules_from(folder)]


def _file_of(module: ModuleType) -> object:
    return getattr(module, "__dict__", {}).get("__file__")


def _comes_from(module: ModuleType, folder: Path) -> bool:
    file = _file_of(module)
    places = [file] if isinstance(file, str) else list(getattr(module, "__path__", ()))
    return any(is_own(Path(path), folder) for path in places)


def _is_there(module: ModuleType, folder: Path) -> bool:
    """Return whether a module stays: it comes from this folder, or is an installed one that others use."""
    file = _file_of(module)
    if not isinstance(file, str):
        return False
    return is_own(Path(file), folder) or "site-packages" in Path(file).parts or "dist-packages" in Path(file).parts
