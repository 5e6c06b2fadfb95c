"""What a Python file needs, as far as its source shows: one list for all callers.

The list decides whether weights are loaded again, whether a variant is measured again, what is sent to another machine,
and what is saved with a model. Code may compose file names: then all files that could match count.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mlflow_compress.networks import code_files
from mlflow_compress.networks.opened_files import is_of_system

WEIGHTS = (
    ".bin", ".ckpt", ".gguf", ".h5", ".hdf5", ".joblib", ".keras", ".npy", ".npz", ".onnx", ".pickle", ".pkl",
    ".pt", ".pth", ".safetensors", ".tflite", ".ts",
)  # fmt: skip
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")  # names of environment variables
_TAIL = re.compile(r"[^/\\*?{}\[\]\s]*\.[A-Za-z]\w{0,11}$")  # the end of a composed name: `.pt`, `_best.pt`
_FILLED_IN = re.compile(r"%[-+ #0-9.]*[A-Za-z]|\$\{?\w+\}?")  # placeholders: `%d`, `$name`
_LISTING = frozenset({"iterdir", "listdir", "scandir", "walk"})
_TRACKING = ("mlruns", "mlartifacts")  # folders of MLflow, which each measurement changes
_MOST_FILES = 20_000  # in a folder


@dataclass(frozen=True)
class Needs:
    """What a Python file needs.

    Attributes:
        modules: Python files below its folder that it imports, directly or indirectly.
        files: files that their string constants name.
        composed: files below its folder whose name ends like a string constant: `f"{name}.pt"`, `*.pt`.
        folders: folders that their string constants name.
        missing: paths that string constants name and that do not exist yet.
        variables: environment variables that string constants name.
    """

    modules: tuple[Path, ...]
    files: tuple[Path, ...]
    composed: tuple[Path, ...]
    folders: tuple[Path, ...]
    missing: tuple[Path, ...]
    variables: tuple[str, ...]

    def all_files(self) -> list[Path]:
        """Return all files that may be read, including modules and up to `_MOST_FILES` files of each folder."""
        of_folders = (file for folder in self.folders for file in _files_below(folder))
        return list(dict.fromkeys([*self.modules, *self.files, *self.composed, *of_folders]))


def needs_of(path: Path) -> Needs:
    """Find what a Python file needs from the source of the file and its modules. Paths of the system are left out."""
    modules = [module for module in dict.fromkeys(code_files.imported(path)) if module != path]
    codes = (path, *modules)
    texts = dict.fromkeys(text for code in codes for text in code_files.texts(code))
    variables = [text for text in texts if _VARIABLE.fullmatch(text) or (text and text in os.environ)]
    values = [value for name in variables if (value := os.environ.get(name))]
    files: dict[Path, None] = {}
    folders: dict[Path, None] = {}
    missing: dict[Path, None] = {}
    tails: set[str] = set()
    for text in (*texts, *values):
        target = code_files.place_of(path, text)
        if target is not None and is_of_system(str(target)):
            continue
        if target is not None and target.is_file():
            files[target] = None
        elif target is not None and target.is_dir():
            if _is_searched(target, path.parent):
                folders[target] = None
        elif tail := _TAIL.search(_FILLED_IN.split(text)[-1]):
            tails.add(tail.group())
            if target is not None and text in texts and " " not in text:  # the value of a variable may be a secret
                missing[target] = None
        elif "*" in text:
            tails.update(WEIGHTS)
    if any(code_files.identifiers(code) & _LISTING for code in codes):
        tails.update(WEIGHTS)
    listed = {*codes, *files}
    ends = tuple(tails)
    matches = (file for file in _all_files_below(path.parent) if file.name.endswith(ends)) if ends else ()
    composed = list(islice(matches, _MOST_FILES))
    return Needs(
        modules=tuple(modules),
        files=tuple(file for file in files if file not in codes),
        composed=tuple(file for file in composed if file not in listed),
        folders=tuple(folders),
        missing=tuple(missing),
        variables=tuple(variables),
    )


def variable_state(name: str) -> str | None:
    """Return a hash of a variable's value, which may be a secret; None: the variable is not set."""
    value = os.environ.get(name)
    return None if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def texts_in_use(path: Path, modules: Sequence[Path], unused: Set[str], used: Set[str]) -> list[str]:
    """Return the string constants of a file and its modules, without those that only unused functions need.

    A statement is left out if only unused functions, or other statements that are left out, use its names.

    Args:
        path: the file.
        modules: the modules that it imports.
        unused: names of functions that are not called.
        used: names of functions that are called from outside.
    """
    statements = [_Statement.of(node, is_top=code == path) for code in (path, *modules) for node in _body(code)]
    left_out = [statement for statement in statements if statement.is_main or statement.is_any_of(unused)]
    while True:
        unreachable = [
            statement
            for statement in statements
            if statement not in left_out
            and not statement.is_any_of(used)
            and _is_only_for(statement, left_out, statements)
        ]
        if not unreachable:
            break
        left_out += unreachable
    statements_in_use = [statement for statement in statements if statement not in left_out]
    return list(dict.fromkeys(text for statement in statements_in_use for text in statement.texts))


@dataclass(frozen=True, eq=False)
class _Statement:
    """A top-level statement: which names it binds and uses, and whether it is in the file itself (`is_top`)."""

    binds: frozenset[str]
    uses: frozenset[str]
    texts: tuple[str, ...]
    is_top: bool
    is_main: bool  # `if __name__ == "__main__":`

    @classmethod
    def of(cls, node: ast.stmt, is_top: bool) -> _Statement:
        is_main = isinstance(node, ast.If) and "__name__" in code_files.names_in(node.test)
        binds, texts = frozenset(code_files.bound_by(node)), tuple(code_files.texts_in(node))
        return cls(binds, frozenset(code_files.names_in(node)), texts, is_top, is_main)

    def is_any_of(self, names: Set[str]) -> bool:
        return self.is_top and not self.binds.isdisjoint(names)


def _is_only_for(statement: _Statement, left_out: Sequence[_Statement], statements: Sequence[_Statement]) -> bool:
    users = [candidate for candidate in statements if candidate is not statement and candidate.uses & statement.binds]
    return bool(users) and all(user in left_out for user in users)


def _body(path: Path) -> list[ast.stmt]:
    return code_files.tree_of(path).body


def _is_searched(folder: Path, home: Path) -> bool:
    """Return whether to search a folder that a text names: a text may name a shared folder such as `/tmp` by chance."""
    path = Path(os.path.normpath(folder))
    is_shared = len(path.parts) <= 2 or path in (Path(tempfile.gettempdir()), Path.home())
    return not (is_shared or home.is_relative_to(path) or path.name in _TRACKING)


def _files_below(folder: Path) -> Iterator[Path]:
    return islice(_all_files_below(folder), _MOST_FILES)


def _all_files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order, without hidden files, environments, caches and folders of MLflow."""
    waiting = [folder]
    while waiting:
        top = waiting.pop()
        try:
            with os.scandir(top) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # not readable, or removed meanwhile
            continue
        visible = [entry for entry in listed if code_files.is_shown(entry.name) and entry.name not in _TRACKING]
        yield from (Path(entry.path) for entry in visible if _is_file(entry))
        waiting += [Path(entry.path) for entry in reversed(visible) if entry.is_dir(follow_symlinks=False)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or to a file without permission
        return False
