"""`watched`: which files Python code reads and writes, and in which state, so that one can tell when they change."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import stat
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

State = list[int] | str | None  # of a file its bytes and date, of a folder what its names are; None: it is not there

_FLAGS = 2  # of the arguments of the event "open"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_PASSING = ("-journal", "-wal", "-shm", ".lock", ".partial")  # files that come and go beside others
_UNHEARD = (  # functions whose files are opened outside of Python: what names the path, and whether they write
    ("safetensors", "safe_open", 0, "filename", False),
    ("safetensors.torch", "save_file", 1, "filename", True),
    ("torch.jit", "load", 0, "f", False),
    ("torch", "save", 1, "f", True),
)


@dataclass
class Watch:
    """What was read and written.

    Attributes:
        read: the files that were read and the folders that were listed, in the state in which they were read.
        written: what was written to, made, moved or removed.
    """

    read: dict[str, State] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def settled(self) -> dict[str, State]:
        """Return what was read; what was written to meanwhile in the state in which it is now."""
        touched = self.written | {os.path.dirname(path) for path in self.written}  # noqa: PTH120  (they are texts)
        return {path: state_of(path) if path in touched else state for path, state in self.read.items()}


_watches: list[Watch] = []
_looking = threading.local()  # of a thread: whether it looks at a file to describe it, which is no reading


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Record the files that are read and written and the folders that are listed meanwhile.

    Python's own and installed packages are left out. What other processes and other languages read is not seen, but for
    what `_UNHEARD` names.
    """
    _install()
    watch = Watch()
    _watches.append(watch)
    try:
        with contextlib.ExitStack() as stack:
            for module, name, index, keyword, is_written in _UNHEARD:
                stack.enter_context(_heard(module, name, index, keyword, is_written))
            yield watch
    finally:
        _watches[:] = [each for each in _watches if each is not watch]


def state_of(path: str) -> State:
    """Return in which state a file or folder is now."""
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            names = [each.name for each in Path(path).iterdir()]
            names = [name for name in names if not (name.startswith((".", "__")) or name.endswith(_PASSING))]
            return hashlib.sha256("\0".join(sorted(names)).encode(errors="surrogateescape")).hexdigest()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None


def _place(path: Any) -> str:
    """Return a path that counts as a whole one; empty of the system's own, and of what is no path."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    place = str(Path(os.fsdecode(path)).absolute())
    return "" if is_of_system(place) else place


def is_of_system(path: str) -> bool:
    """Return whether a whole path is of the system, of Python, or of an installed package: no user writes there."""
    return path.startswith(_elsewhere())


def _note_read(path: Any) -> None:
    """Note a path that is read."""
    if place := _place(path):
        _looking.is_on = True
        try:
            state = state_of(place)
        finally:
            _looking.is_on = False
        if state is not None:
            for watch in tuple(_watches):  # another thread may begin one
                watch.read[place] = state


def _note_written(path: Any) -> None:
    """Note a path that is written to, made, moved or removed."""
    if place := _place(path):
        for watch in tuple(_watches):  # another thread may begin one
            watch.written.add(place)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or getattr(_looking, "is_on", False):
        return
    if event == "open":
        flags = arguments[_FLAGS] if isinstance(arguments[_FLAGS], int) else 0
        if flags & (os.O_WRONLY | os.O_TRUNC) == 0:
            _note_read(arguments[0])
        if flags & _WRITES:
            _note_written(arguments[0])
    elif event in ("os.listdir", "os.scandir") and not _is_importing():
        _note_read(arguments[0] if arguments[0] is not None else ".")
    elif event in _CHANGES:
        for path in arguments[:2]:
            _note_written(path)


def _is_importing() -> bool:
    """Return whether the import system asks: it lists each folder that it looks into."""
    return "importlib" in sys._getframe(2).f_code.co_filename


@functools.cache
def _install() -> None:
    sys.addaudithook(_hear)  # for the life of the process: none can be taken away


@functools.cache
def _elsewhere() -> tuple[str, ...]:
    """Return where the system, Python and the installed packages are."""
    places = {sys.prefix, sys.base_prefix, *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))}
    places = {place for place in places if place not in ("/", "/usr", "/usr/local")} | {"/usr/lib", "/usr/share"}
    return tuple(f"{place}{os.sep}" for place in (*places, "/proc", "/sys", "/dev", "/etc"))


@contextlib.contextmanager
def _heard(module: str, name: str, index: int, keyword: str, is_written: bool) -> Iterator[None]:
    """Note the path that is given to a function whose file is opened outside of Python, which raises no event."""
    original: Callable[..., Any] = getattr(importlib.import_module(module), name)

    def noted(*given: Any, **options: Any) -> Any:
        path = given[index] if len(given) > index else options.get(keyword)
        (_note_written if is_written else _note_read)(path)
        return original(*given, **options)

    _replace(name, original, noted)
    try:
        yield
    finally:
        _replace(name, noted, original)


def _replace(name: str, one: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Put a function in another one's place, in all modules that hold it under its name."""
    for holder in list(sys.modules.values()):
        space = getattr(holder, "__dict__", None)
        if isinstance(space, dict) and space.get(name) is one:
            space[name] = other
