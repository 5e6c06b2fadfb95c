"""Tries a hostile input on a reader in a separate process: with limits, and with a marker that no code may write."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import resource
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import CompressError

Make = Callable[[Path, str], Path]
Reader = Callable[[Path], object]

_SECONDS = 60  # generous: only a stuck process takes so long
_BYTES = 4 * 2**30  # more than the process has at its start
_MARKER = "code-ran"


@dataclass(frozen=True)
class Outcome:
    """The result of a reader on an input.

    Attributes:
        ending: Whether the reader returned, raised an allowed error, raised another error, or never ended.
        message: Name and text of the error, or the type of the returned value.
        code_ran: Whether the payload ran.
    """

    ending: Literal["returned", "refused", "broke", "died"]
    message: str
    code_ran: bool

    @property
    def is_harmless(self) -> bool:
        """Whether no code ran, and the reader returned or raised an allowed error."""
        return not self.code_ran and self.ending in ("returned", "refused")


def inputs(kind: str = "") -> dict[str, Make]:
    """Return all inputs by name (`checkpoints.legacy_pickle_in_front`), or those of one kind."""
    makers: dict[str, Make] = {}
    for path in sorted(Path(__file__).parent.glob("inputs_*.py")):
        of = path.stem.partition("_")[2]
        if kind not in ("", of):
            continue
        module = importlib.import_module(f".{path.stem}", __package__)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                makers[f"{of}.{name}"] = function
    return makers


def assert_harmless(reader: Reader, name: str, may_raise: tuple[type[Exception], ...] = (CompressError,)) -> None:
    """Check that a reader runs no code of an input, ends in bounded time and memory, and raises only allowed errors.

    Args:
        reader: Function that takes the path of the input.
        name: Name of the input in `inputs`.
        may_raise: Errors that the reader documents.
    """
    outcome = play(reader, inputs(name.partition(".")[0])[name], may_raise)
    assert outcome.is_harmless, f"{name}: {'CODE RAN; ' * outcome.code_ran}{outcome.ending}: {outcome.message}"


def play(reader: Reader, make: Make, may_raise: tuple[type[Exception], ...] = (CompressError,)) -> Outcome:
    """Create an input in a new folder, and run a reader on it."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        marker = Path(name, _MARKER)
        folder = Path(name, "input")
        folder.mkdir()
        path = make(folder, f"touch {marker}")
        if marker.exists():
            raise AssertionError(f"{make.__name__} ran its own payload while it was made")
        context = multiprocessing.get_context("fork")  # otherwise each process would import torch again
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_read, args=(reader, path, may_raise, sender))
        child.start()
        sender.close()
        ending, message = _result(receiver)
        child.kill()
        child.join()
        return Outcome(ending, message, marker.exists())


def _result(receiver: Connection) -> tuple[Any, str]:
    if not receiver.poll(_SECONDS):
        return "died", f"no end after {_SECONDS} s"
    try:
        ending, message = receiver.recv()
    except EOFError:
        return "died", "its process is gone"
    return ending, message


def _read(reader: Reader, path: Path, may_raise: tuple[type[Exception], ...], sender: Connection) -> None:
    _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, hard_limit))
    try:
        result = reader(path)
    except may_raise as error:
        sender.send(("refused", f"{type(error).__name__}: {error}"))
    except BaseException:
        sender.send(("broke", traceback.format_exc(limit=-3)))
    else:
        sender.send(("returned", type(result).__name__))
