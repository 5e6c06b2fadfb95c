"""Lets a user's file import the modules that lie beside it, and nobody else: `sys.path` stays as it is."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from mlflow_compress.networks.code_files import PACKAGE, imported, is_own


class Uncached(importlib.machinery.SourceFileLoader):
    """Runs a Python file as it is now: compiled code of an older one, of the same second and size, is not taken."""

    def path_stats(self, path: object) -> dict[str, object]:
        """Know no date, by which compiled code is told to be current."""
        raise OSError(path)


class _Finder:
    """Finds modules beside the file that imports them. Such a file's folder comes first, as under `python FILE`."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.alone: set[Path] = set()  # files that find nothing beside them, though others of their folder may
        self.served: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module for a file in one of the folders; None for all others, for Python's own modules, and for us."""
        if path is not None or name in sys.stdlib_module_names or name == PACKAGE.name:
            return None
        if (folder := self._folder_of_importer()) is None:
            return None
        spec = PathFinder.find_spec(name, [str(folder)])
        is_folder = spec is not None and spec.loader is None  # without __init__.py: what is installed comes before it
        if spec is None or (is_folder and PathFinder.find_spec(name) is not None):
            return None
        if type(spec.loader) is importlib.machinery.SourceFileLoader and spec.origin is not None:
            spec.loader = Uncached(name, spec.origin)
        self.served.add(name)
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


def allow(path: Path, is_alone: bool = False) -> None:
    """Let a file, and what it imports of its folder, import from there; modules of other files' folders are forgotten.

    They are run anew at the next import, so that two files whose helpers are called alike get each its own.

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
    needed = () if is_alone else imported(path)
    tops = {file.relative_to(path.parent).parts[0].removesuffix(".py") for file in needed}
    strange = {name for name in tops if name in sys.modules and not _is_there(sys.modules[name], path.parent)}
    for name in list(sys.modules):
        if name.partition(".")[0] in _finder.served | strange:
            del sys.modules[name]
    _finder.served.clear()


def modules_from(folder: Path) -> list[ModuleType]:
    """Return the imported modules that come from Python files in a folder."""
    files = [(module, file) for module in list(sys.modules.values()) if isinstance(file := _file_of(module), str)]
    return [module for module, file in files if file.endswith(".py") and is_own(Path(file), folder)]


def loaded_from(folder: Path) -> list[Path]:
    """Return the Python files in a folder that imported modules come from."""
    return [Path(str(_file_of(module))) for module in modules_from(folder)]


def _file_of(module: ModuleType) -> object:
    return getattr(module, "__dict__", {}).get("__file__")


def _is_there(module: ModuleType, folder: Path) -> bool:
    """Return whether a module is to stay: it comes from this folder, or is an installed one that others use."""
    file = _file_of(module)
    if not isinstance(file, str):
        return False
    return is_own(Path(file), folder) or "site-packages" in Path(file).parts or "dist-packages" in Path(file).parts
