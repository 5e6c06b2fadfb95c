"""`watched`: records the files that Python code reads and writes, with their states, to notice when they change."""

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

State = list[int] | str | None  # size and date of a file, or a hash of the names in a folder; None: it does not exist

_FLAGS = 2  # index of the flags in the arguments of the event "open"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_PASSING = ("-journal", "-wal", "-shm", ".lock", ".partial")  # temporary files beside others
_UNHEARD = (  # functions that open files outside Python: place and name of the path argument, and whether they write
    ("safetensors", "safe_open", 0, "filename", False),
    ("safetensors.torch", "save_file", 1, "filename", True),
    ("torch.jit", "load", 0, "f", False),
    ("torch", "save", 1, "f", True),
)


@dataclass
class Watch:
    """Files that were read and written.

    Attributes:
        read: files that were read and folders that were listed, with their states at that time.
        written: paths that were written to, created, moved or removed.
    """

    read: dict[str, State] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def settled(self) -> dict[str, State]:
        """Return what was read; paths that were also written to have their current states."""
        touched = self.written | {os.path.dirname(path) for path in self.written}  # noqa: PTH120  (they are strings)
        return {path: state_of(path) if path in touched else state for path, state in self.read.items()}


_watches: list[Watch] = []
_looking = threading.local()  # per thread: whether this module itself inspects a file, which does not count


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Record the files that are read and written and the folders that are listed meanwhile.

    Python's own files and installed packages are left out. Files read by other processes or in other languages are not
    seen, except for the functions in `_UNHEARD`.
    """
    _install()
    watch = Watch()
    with _hearing():
        _watches.append(watch)
        try:
            yield watch
        finally:
            _watches[:] = [running for running in _watches if running is not watch]


def state_of(path: str) -> State:
    """Return the current state of a file or folder."""
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            names = [entry.name for entry in Path(path).iterdir()]
            names = [name for name in names if not (name.startswith((".", "__")) or name.endswith(_PASSING))]
            return hashlib.sha256("\0".join(sorted(names)).encode(errors="surrogateescape")).hexdigest()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None


def _place(path: Any) -> str:
    """Return an absolute path; empty for paths of the system and for values that are not paths."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    absolute = str(Path(os.fsdecode(path)).absolute())
    return "" if is_of_system(absolute) else absolute


def is_of_system(path: str) -> bool:
    """Return whether an absolute path belongs to the system, Python or an installed package, not to a user."""
    return path.startswith(_elsewhere())


def _note_read(path: Any) -> None:
    """Record a path that is read."""
    if absolute := _place(path):
        _looking.is_on = True
        try:
            state = state_of(absolute)
        finally:
            _looking.is_on = False
        if state is not None:
            for watch in tuple(_watches):  # another thread may begin one
                watch.read[absolute] = state


def _note_written(path: Any) -> None:
    """Record a path that is written to, created, moved or removed."""
    if absolute := _place(path):
        for watch in tuple(_watches):  # another thread may begin one
            watch.written.add(absolute)


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
    """Return whether the import system lists the folder: it lists each folder that it searches."""
    return "importlib" in sys._getframe(2).f_code.co_filename


@functools.cache
def _install() -> None:
    sys.addaudithook(_hear)  # for the life of the process: audit hooks can't be removed


@functools.cache
def _elsewhere() -> tuple[str, ...]:
    """Return the folders of the system, Python and the installed packages."""
    places = {sys.prefix, sys.base_prefix, *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))}
    places = {folder for folder in places if folder not in ("/", "/usr", "/usr/local")} | {"/usr/lib", "/usr/share"}
    system = {"darwin": ("/System", "/Library"), "win32": (os.environ.get("SYSTEMROOT", "C:\\Windows"),)}
    of_system = system.get(sys.platform, ("/proc", "/sys"))
    return tuple(f"{place}{os.sep}" for place in (*places, *of_system, "/dev", "/etc"))


@contextlib.contextmanager
def _hearing() -> Iterator[None]:
    """Record the paths passed to functions that open their files outside Python, which raises no audit event."""
    originals = {name: getattr(importlib.import_module(module), name) for module, name, *_ in _UNHEARD}
    noted = {
        name: _noted(originals[name], index, keyword, is_written) for _, name, index, keyword, is_written in _UNHEARD
    }
    _replace(originals, noted)
    try:
        yield
    finally:
        _replace(noted, originals)


def _noted(original: Callable[..., Any], index: int, keyword: str, is_written: bool) -> Callable[..., Any]:
    """Return a function that records the path passed to it, and calls the original."""

    def noted(*positional: Any, **options: Any) -> Any:
        path = positional[index] if len(positional) > index else options.get(keyword)
        (_note_written if is_written else _note_read)(path)
        return original(*positional, **options)

    return noted


def _replace(old: Mapping[str, Callable[..., Any]], new: Mapping[str, Callable[..., Any]]) -> None:
    """Replace functions by others in all modules that hold them under their names; there are thousands of modules."""
    for holder in list(sys.modules.values()):
        space = getattr(holder, "__dict__", None)
        if isinstance(space, dict):
            for name, function in old.items():
                if space.get(name) is function:
                    space[name] = new[name]
