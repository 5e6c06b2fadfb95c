"""Where in the user's own code an error came from: file, line and function."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from mlflow_compress.errors import CompressError, named_line
from mlflow_compress.plain_text import plain

_LIBRARIES = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")})
_PACKAGE = Path(__file__).resolve().parents[1]


def place(error: BaseException, folder: Path) -> str:
    """Return the innermost line of the user's that an error passed: `my_model.py, line 7, in forward`; or nothing.

    Args:
        error: what was raised. Where it was raised from another error, that one is looked at first.
        folder: where the user's code lies. What is installed, and this package, is not the user's.
    """
    folder = folder.resolve()
    for one in filter(None, (error.__cause__, error)):
        if isinstance(one, SyntaxError) and one.filename and _is_users(Path(one.filename), folder):
            return f"{_told(Path(one.filename), folder)}, line {one.lineno}"
        frames = [frame for frame in traceback.extract_tb(one.__traceback__) if _is_users(Path(frame.filename), folder)]
        if frames:
            last = frames[-1]
            function = "" if last.name.startswith("<") else f", in {last.name}"
            return f"{_told(Path(last.filename), folder)}, line {last.lineno}{function}"
    return ""


def said(error: BaseException, folder: Path, most: int = 500) -> str:
    """Return what went wrong as one line, with the place in the user's code where that is known."""
    text = plain(str(error), most) if isinstance(error, CompressError) else named_line(error, most)
    where = place(error, folder)
    if not where or where in text:
        return text
    return f"{text.rstrip('.')} ({where})." if isinstance(error, CompressError) else f"{where}: {text}"


def _is_users(path: Path, folder: Path) -> bool:
    path = path.resolve()
    is_installed = any(path.is_relative_to(library) for library in (*_LIBRARIES, _PACKAGE))
    return path.is_relative_to(folder) and path.suffix == ".py" and not is_installed


def _told(path: Path, folder: Path) -> str:
    return plain(str(path.resolve().relative_to(folder)))
