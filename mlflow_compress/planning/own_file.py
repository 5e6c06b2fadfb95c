"""`look`: read what a user's model file defines, as text. Nothing in it is run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow_compress.errors import RecipeError, one_line

_METRICS = "metrics"
_MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class OwnFile:
    """The definitions of a Python file.

    Attributes:
        names: functions, classes and values that it defines or imports at the top level.
        metrics: the metrics that it names; empty if it names none.
    """

    names: frozenset[str] = frozenset()
    metrics: tuple[str, ...] = ()

    @property
    def own_data(self) -> str | None:
        """Return the data that its quality is scored on: its own labelled samples, or None."""
        return "own" if "samples" in self.names else None


def look(path: Path) -> OwnFile:
    """Read a file.

    Raises:
        RecipeError: it can't be read, or is not valid Python.
    """
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"it has {size / 2**20:,.1f} MiB, which is too large for code")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns again when the file is run
            tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        location = f"{path}, line {error.lineno}" if error.lineno else str(path)
        raise RecipeError(f"{location} is not valid Python: {error.msg}.") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise RecipeError(f"{path} can't be read as Python: {one_line(error)}") from None
    names = frozenset(_names(tree.body))
    metrics = [
        _texts(statement.value, path)
        for statement in tree.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value and _METRICS in _assigned(statement)
    ]
    return OwnFile(names, metrics[-1] if metrics else ())


def _names(statements: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements define, also those under a condition."""
    for statement in statements:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in statement.names)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value:
            yield from _assigned(statement)
        elif isinstance(statement, (ast.If, ast.Try)):
            yield from _names([*statement.body, *statement.orelse])


def _assigned(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    """Return the names that an assignment sets."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _texts(value: ast.expr, path: Path) -> tuple[str, ...]:
    """Return the texts of a literal list.

    Raises:
        RecipeError: it is something else.
    """
    try:
        texts = ast.literal_eval(value)
    except ValueError:
        texts = None
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise RecipeError(
            f'{path}, line {value.lineno}: {_METRICS} must be a literal list of names, such as ["accuracy"].'
        )
    return tuple(texts)
