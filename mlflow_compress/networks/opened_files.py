"""`watched`: which files Python code reads, and in which state, so that one can tell when they have changed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

State = list[int] | str | None  # of a file its bytes and date, of a folder what its names are; None: it is not there

_watches: list[dict[str, State]] = []
_FLAGS = 2  # of the arguments of the event "open"
_PASSING = ("-journal", "-wal", "-shm", ".lock", ".partial")  # files that come and go beside others


@contextlib.contextmanager
def watched() -> Iterator[dict[str, State]]:
    """Record the files that are read and the folders that are listed meanwhile, in the state in which they were read.

    Python's own and installed packages are left out. What other processes and other languages read is not seen, but for
    `safetensors`.
    """
    _install()
    states: dict[str, State] = {}
    _watches.append(states)
    try:
        with _seen_safetensors():
            yield states
    finally:
        _watches[:] = [each for each in _watches if each is not states]


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


def _note(path: Any) -> None:
    """Note a path that is read, unless it is the system's."""
    if isinstance(path, (str, bytes, os.PathLike)):
        place = str(Path(os.fsdecode(path)).absolute())
        if not place.startswith(_elsewhere()):
            watches, _watches[:] = list(_watches), []  # listing a folder to describe it is no reading
            try:
                state = state_of(place)
            finally:
                _watches[:] = watches
            if state is not None:
                for states in _watches:
                    states[place] = state


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches:
        return
    if event == "open":
        flags = arguments[_FLAGS] if isinstance(arguments[_FLAGS], int) else 0
        if flags & (os.O_WRONLY | os.O_TRUNC) == 0:
            _note(arguments[0])
    elif event in ("os.listdir", "os.scandir") and not _is_importing():
        _note(arguments[0] if arguments[0] is not None else ".")


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
def _seen_safetensors() -> Iterator[None]:
    """Note what safetensors opens, whose reader is no Python and raises no event."""
    import safetensors

    opened: Callable[..., Any] = safetensors.safe_open

    def noted(filename: Any, *given: Any, **options: Any) -> Any:
        _note(filename)
        return opened(filename, *given, **options)

    holders = [each for each in list(sys.modules.values()) if vars(each).get("safe_open") is opened]
    for module in holders:
        module.safe_open = noted  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in holders:
            module.safe_open = opened  # type: ignore[attr-defined]
