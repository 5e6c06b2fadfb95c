"""What an error that other code raised says, for a sentence: its first cause, and where in the user's code it was."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from mlflow_compress.plain_text import plain

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "bad_alloc")  # how libraries word it, of any type
_SAY_NOTHING = (AssertionError, AttributeError, Exception, NotImplementedError, RuntimeError, TypeError, ValueError)
_EMPTY = re.compile(r"\W*(error|exception|exception from \S+)?\W*", re.IGNORECASE)  # lines that say nothing


def cause_line(error: BaseException, most: int = 140) -> str:
    """Return the first cause of an error in one line: the first line of what it says, after a name that says more."""
    cause = list(_chain(error))[-1]
    said = [line for line in _COLOURS.sub("", str(cause)).splitlines() if not _EMPTY.fullmatch(line)]
    name = type(cause).__name__
    if not said:
        return plain(name, most)
    first = " ".join(line.strip() for line in said[:2]) if said[0].rstrip().endswith(":") else said[0]
    return plain(first if type(cause) in _SAY_NOTHING else f"{name}: {first}", most)


def own_place(error: BaseException) -> str:
    """Name file, line and function of the user's code in which an error was raised; empty where it was in none.

    The user's code is what neither Python, nor an installed library, nor this package brings.
    """
    paths = sysconfig.get_paths()
    others = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others += [Path(__file__).parent, Path(traceback.__file__).parent]

    def is_users(file: str | None) -> bool:
        path = Path(file or "")
        is_library = "site-packages" in path.parts or any(path.is_relative_to(other) for other in others)
        return path.is_file() and not is_library

    for each in reversed(list(_chain(error))):
        if isinstance(each, SyntaxError) and is_users(each.filename):
            return f"{plain(Path(each.filename or '').name)}, line {each.lineno}"
        frames = [frame for frame in reversed(traceback.extract_tb(each.__traceback__)) if is_users(frame.filename)]
        if frames:
            file = frames[0].filename
            names = [frame.name for frame in frames if frame.filename == file and not frame.name.startswith("<")]
            function = f", in {plain(names[0])}" if names else ""
            return f"{plain(Path(file).name)}, line {frames[0].lineno}{function}"
    return ""


def is_of_this_package(error: BaseException) -> bool:
    """Tell whether the first cause was raised by a line of this package: then it is a defect, and no reason to skip."""
    frames = traceback.extract_tb(list(_chain(error))[-1].__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, of the machine or of a GPU."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    return any(sign in str(error).lower() for sign in _OF_MEMORY)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error, and what it was raised from, one after the other."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or getattr(cause, "inner_exception", None)  # as torch.compile keeps a backend's
