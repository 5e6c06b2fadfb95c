"""What a file of Python code needs beside it, as far as its text tells: one list for all who ask.

They ask whether weights are to be made anew, whether a variant is to be measured anew, what goes to another machine,
and what is kept with a model. Names that code puts together are not known whole: all files that may be meant count.
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
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")  # how variables of the environment are called
_TAIL = re.compile(r"[^/\\*?{}\[\]\s]*\.[A-Za-z]\w{0,11}$")  # of a name that is put together: `.pt`, `_best.pt`
_FILLED_IN = re.compile(r"%[-+ #0-9.]*[A-Za-z]|\$\{?\w+\}?")  # parts that others take the place of: `%d`, `$name`
_LISTING = frozenset({"iterdir", "listdir", "scandir", "walk"})
_TRACKING = ("mlruns", "mlartifacts")  # folders of MLflow, which each measurement changes
_MOST_FILES = 20_000  # that are looked at in a folder


@dataclass(frozen=True)
class Needs:
    """What a Python file needs beside itself.

    Attributes:
        modules: Python files below its folder that it imports, and that these import.
        files: that their texts name.
        composed: files below its folder whose name ends as a text does: `f"{name}.pt"`, `*.pt`.
        folders: that their texts name, on the whole.
        missing: what texts name where nothing is: it may come.
        variables: of the environment, that texts name.
    """

    modules: tuple[Path, ...]
    files: tuple[Path, ...]
    composed: tuple[Path, ...]
    folders: tuple[Path, ...]
    missing: tuple[Path, ...]
    variables: tuple[str, ...]

    def all_files(self) -> list[Path]:
        """Return all files that may be read, modules and those in the folders too: the first `_MOST_FILES` of each."""
        of_folders = (file for folder in self.folders for file in _files_below(folder))
        return list(dict.fromkeys([*self.modules, *self.files, *self.composed, *of_folders]))


def needs_of(path: Path) -> Needs:
    """Read off a Python file's text, and its modules', what it needs. What is the system's own is left out."""
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
        place = code_files.place_of(path, text)
        if place is not None and is_of_system(str(place)):
            continue
        if place is not None and place.is_file():
            files[place] = None
        elif place is not None and place.is_dir():
            if _is_told(place, path.parent):
                folders[place] = None
        elif tail := _TAIL.search(_FILLED_IN.split(text)[-1]):
            tails.add(tail.group())
            if place is not None and text in texts and " " not in text:  # a variable's value may be a secret
                missing[place] = None
        elif "*" in text:
            tails.update(WEIGHTS)
    if any(code_files.identifiers(code) & _LISTING for code in codes):
        tails.update(WEIGHTS)
    known = {*codes, *files}
    ends = tuple(tails)
    meant = (file for file in _all_files_below(path.parent) if file.name.endswith(ends)) if ends else ()
    composed = list(islice(meant, _MOST_FILES))
    return Needs(
        modules=tuple(modules),
        files=tuple(file for file in files if file not in codes),
        composed=tuple(file for file in composed if file not in known),
        folders=tuple(folders),
        missing=tuple(missing),
        variables=tuple(variables),
    )


def variable_state(name: str) -> str | None:
    """Return what tells a variable's value from another; the value may be a secret. None: it is not set."""
    value = os.environ.get(name)
    return None if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def texts_in_use(path: Path, modules: Sequence[Path], unused: Set[str], used: Set[str]) -> list[str]:
    """Return the texts of a file and its modules, but not those that only certain functions of the file use.

    A statement is left out where such a function, or another statement that is left out, is all that uses its names.

    Args:
        path: the file.
        modules: those that it imports.
        unused: names of these functions.
        used: names of functions that are called from outside.
    """
    statements = [_Statement.of(node, is_top=code == path) for code in (path, *modules) for node in _body(code)]
    left_out = [each for each in statements if each.is_main or (each.is_top and each.binds & unused)]
    while True:
        more = [
            each
            for each in statements
            if each not in left_out
            and not (each.is_top and each.binds & used)
            and _is_only_for(each, left_out, statements)
        ]
        if not more:
            break
        left_out += more
    kept = [each for each in statements if each not in left_out]
    return list(dict.fromkeys(text for each in kept for text in each.texts))


@dataclass(frozen=True, eq=False)
class _Statement:
    """A statement at the top of a file: which names it binds, and which it uses; whether it is of the file itself."""

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


def _is_only_for(statement: _Statement, left_out: Sequence[_Statement], all_of_them: Sequence[_Statement]) -> bool:
    users = [each for each in all_of_them if each is not statement and each.uses & statement.binds]
    return bool(users) and all(user in left_out for user in users)


def _body(path: Path) -> list[ast.stmt]:
    return code_files.tree_of(path).body


def _is_told(folder: Path, home: Path) -> bool:
    """Return whether a folder that a text names is looked into: a word may name one by chance, as `/tmp`."""
    place = Path(os.path.normpath(folder))
    is_everybodys = len(place.parts) <= 2 or place in (Path(tempfile.gettempdir()), Path.home())
    return not (is_everybodys or home.is_relative_to(place) or place.name in _TRACKING)


def _files_below(folder: Path) -> Iterator[Path]:
    return islice(_all_files_below(folder), _MOST_FILES)


def _all_files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it, in order; not what is hidden, nor of environments, caches, MLflow."""
    waiting = [folder]
    while waiting:
        top = waiting.pop()
        try:
            with os.scandir(top) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # not to be read, or gone meanwhile
            continue
        shown = [entry for entry in listed if code_files.is_shown(entry.name) and entry.name not in _TRACKING]
        yield from (Path(entry.path) for entry in shown if _is_file(entry))
        waiting += [Path(entry.path) for entry in reversed(shown) if entry.is_dir(follow_symlinks=False)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or to what may not be looked at
        return False
