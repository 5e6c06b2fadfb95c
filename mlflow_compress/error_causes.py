"""Describe errors of other code in one line: the first cause, and its place in the user's code."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from mlflow_compress.plain_text import plain

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "bad_alloc")  # in messages of libraries
_SAY_NOTHING = (AssertionError, AttributeError, Exception, NotImplementedError, RuntimeError, TypeError, ValueError)
_EMPTY = re.compile(r"\W*(error|exception|exception from \S+)?\W*", re.IGNORECASE)  # lines without information


def cause_line(error: BaseException, most: int = 140) -> str:
    """Return the first cause of an error in one line: its class name, if informative, and its first line."""
    cause = list(_chain(error))[-1]
    lines = [line for line in _COLOURS.sub("", str(cause)).splitlines() if not _EMPTY.fullmatch(line)]
    name = type(cause).__name__
    if not lines:
        return plain(name, most)
    first = " ".join(line.strip() for line in lines[:2]) if lines[0].rstrip().endswith(":") else lines[0]
    return plain(first if type(cause) in _SAY_NOTHING else f"{name}: {first}", most)


def own_place(error: BaseException) -> str:
    """Return file, line and function of the user's code that raised an error; empty if it was not the user's code.

    The user's code is all code that does not belong to Python, an installed library or this package.
    """
    paths = sysconfig.get_paths()
    library_folders = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    library_folders += [Path(__file__).parent, Path(traceback.__file__).parent]

    def is_users(file: str | None) -> bool:
        path = Path(file or "")
        is_library = "site-packages" in path.parts or any(path.is_relative_to(library) for library in library_folders)
        return path.is_file() and not is_library

    for cause in reversed(list(_chain(error))):
        if isinstance(cause, SyntaxError) and is_users(cause.filename):
            return f"{plain(Path(cause.filename or '').name)}, line {cause.lineno}"
        frames = [frame for frame in reversed(traceback.extract_tb(cause.__traceback__)) if is_users(frame.filename)]
        if frames:
            file = frames[0].filename
            names = [frame.name for frame in frames if frame.filename == file and not frame.name.startswith("<")]
            function = f", in {plain(names[0])}" if names else ""
            return f"{plain(Path(file).name)}, line {frames[0].lineno}{function}"
    return ""


def is_of_this_package(error: BaseException) -> bool:
    """Return whether this package raised the first cause: then it is a bug, not a reason to skip."""
    frames = traceback.extract_tb(list(_chain(error))[-1].__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the machine or a GPU ran out of memory."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    return any(sign in str(error).lower() for sign in _OF_MEMORY)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, one after the other."""
    seen_ids: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen_ids:
        seen_ids.add(id(cause))
        yield cause
        cause = cause.__cause__ or getattr(cause, "inner_exception", None)  # torch.compile stores a backend's error so
