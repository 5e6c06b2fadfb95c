"""The files beside a file of Python code that it needs, as far as its text tells: it imports them, or names them."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # this package, which is there wherever the code is run
_LONGEST = 1024  # characters of what may be a path
_FOREIGN = ("site-packages", "dist-packages")  # an environment in the folder: what it holds is installed elsewhere too


def imported(path: Path) -> list[Path]:
    """Return the Python files below a file's folder that it imports, and those that these import, each once.

    An import counts wherever it stands, in a function too. The file itself is not among them.
    """
    folder, files, waiting = path.parent, dict[Path, None](), [path]
    while waiting:
        file = waiting.pop(0)
        for needed in _imports(file, folder):
            if needed != path and needed not in files and is_own(needed, folder):
                files[needed] = None
                waiting.append(needed)
    return list(files)


def texts(path: Path, skipped: Sequence[str] = ()) -> list[str]:
    """Return the texts that stand in a Python file, each once, but not in its functions of the names `skipped`."""
    found: dict[str, None] = {}
    for statement in _tree(path).body:
        if not (isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name in skipped):
            for node in ast.walk(statement):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found[node.value] = None
    return list(found)


def named(path: Path, words: Iterable[str]) -> list[Path]:
    """Return the files and folders that texts name, from a file's folder or as whole paths."""
    places: dict[Path, None] = {}
    for word in words:
        if not word.strip("./ \t\n") or len(word) > _LONGEST or "\n" in word or "\0" in word:
            continue
        try:
            place = path.parent / Path(word).expanduser()
            if place.exists():
                places[place] = None
        except (OSError, RuntimeError, ValueError):  # longer than a name can be, or ~ of nobody
            continue
    return list(places)


def needed(path: Path) -> list[Path]:
    """Return the files that a Python file's text says it needs: modules that it imports, and files that these name."""
    modules = imported(path)
    words = dict.fromkeys(word for module in (path, *modules) for word in texts(module))
    files = [place for place in named(path, words) if place.is_file() and place not in (path, *modules)]
    return [*modules, *files]


def is_own(path: Path, folder: Path) -> bool:
    """Return whether a file is one of a folder's own: below it, not hidden, in no environment, and none of ours."""
    if not path.is_relative_to(folder) or path.is_relative_to(PACKAGE):
        return False
    parts = path.relative_to(folder).parts
    return not any(part.startswith(".") or part in (*_FOREIGN, "__pycache__") for part in parts)


def _imports(file: Path, folder: Path) -> Iterator[Path]:
    """Yield the files that a file's imports name, as Python finds them when the folder comes first."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _along(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = folder if not node.level else file.parents[node.level - 1]
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _along(base, [*parts, alias.name])


def _along(base: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield the files that are run when a dotted name is imported, as far as they are there."""
    if parts and (parts[0] in sys.stdlib_module_names or parts[0] == PACKAGE.name):
        return
    place = base
    for part in parts:
        package, module = place / part / "__init__.py", place / f"{part}.py"
        if package.is_file():
            yield package
        elif module.is_file():
            yield module
            return
        elif not (place / part).is_dir():
            return
        place = place / part


def _tree(path: Path) -> ast.Module:
    """Return a file's syntax tree; an empty one of what is no Python."""
    try:
        status = path.stat()
        return _parsed(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return ast.Module([], [])


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, size: int, changed_ns: int) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])
