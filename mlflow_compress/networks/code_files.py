"""The files that a Python file needs, as far as its source shows: files that it imports or names."""

from __future__ import annotations

import ast
import functools
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # this package, which is installed wherever the code runs
_LONGEST = 1024  # characters in a possible path
_FOREIGN = ("site-packages", "dist-packages")  # of an environment inside the folder


def imported(path: Path) -> list[Path]:
    """Return the Python files below a file's folder that it imports, directly or indirectly, each once.

    Imports inside functions count too. The file itself is not included.
    """
    folder, files, waiting = path.parent, dict[Path, None](), [path]
    while waiting:
        file = waiting.pop(0)
        for module_file in _imports(file, folder):
            if module_file != path and module_file not in files and is_own(module_file, folder):
                files[module_file] = None
                waiting.append(module_file)
    return list(files)


def texts(path: Path) -> list[str]:
    """Return the string constants in a Python file, each once."""
    return texts_in(tree_of(path))


def texts_in(tree: ast.AST) -> list[str]:
    """Return the string constants in a syntax tree, each once."""
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return list(dict.fromkeys(value for value in constants if isinstance(value, str)))


def identifiers(path: Path) -> set[str]:
    """Return the names that a Python file uses: variables, functions and attributes."""
    return names_in(tree_of(path))


def names_in(tree: ast.AST) -> set[str]:
    """Return the names that a syntax tree uses: variables, attributes and imported names."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.name for alias in node.names)
    return names


def bound_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds: functions, classes, variables and imported names."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if not isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return set()
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def place_of(path: Path, word: str) -> Path | None:
    """Return the path that a text may name, relative to a file's folder or absolute; None: it is not a path."""
    if not word.strip("./ \t\n") or len(word) > _LONGEST or "\n" in word or "\0" in word:
        return None
    try:
        target = path.parent / Path(word).expanduser()
        target.exists()
    except (OSError, RuntimeError, ValueError):  # the name is too long, or ~ names an unknown user
        return None
    return target


def is_own(path: Path, folder: Path) -> bool:
    """Return whether a file belongs to a folder: below it, not hidden, not in an environment or in this package."""
    if not path.is_relative_to(folder) or path.is_relative_to(PACKAGE):
        return False
    parts = path.relative_to(folder).parts
    return all(map(is_shown, parts))


def is_shown(name: str) -> bool:
    """Return whether a file or folder with this name counts: it is not hidden, an environment or a cache."""
    return not name.startswith(".") and name not in (*_FOREIGN, "__pycache__")


def _imports(file: Path, folder: Path) -> Iterator[Path]:
    """Yield the files that a file imports, as Python finds them with the folder first on its path."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _along(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = folder if not node.level else file.parents[node.level - 1]
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _along(base, [*parts, alias.name])


def _along(base: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield the existing files that Python runs to import a dotted name."""
    if parts and (parts[0] in sys.stdlib_module_names or parts[0] == PACKAGE.name):
        return
    folder = base
    for part in parts:
        package, module = folder / part / "__init__.py", folder / f"{part}.py"
        if package.is_file():
            yield package
        elif module.is_file():
            yield module
            return
        elif not (folder / part).is_dir():
            return
        folder = folder / part


def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree; an empty one if the file is not Python."""
    try:
        status = path.stat()
        return _parsed(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return ast.Module([], [])


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, size: int, changed_ns: int) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python shows them when it runs the file
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])
