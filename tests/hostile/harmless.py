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
        how: whether it returned, raised an allowed error, raised another error, or never ended.
        said: the error's name and text, or the type of the returned value.
        code_ran: whether the payload ran.
    """

    how: Literal["returned", "refused", "broke", "died"]
    said: str
    code_ran: bool

    @property
    def is_harmless(self) -> bool:
        """Whether nothing ran, and the reader returned or raised a clear error."""
        return not self.code_ran and self.how in ("returned", "refused")


def inputs(kind: str = "") -> dict[str, Make]:
    """Return all inputs by name (`checkpoints.legacy_pickle_in_front`), or those of one kind."""
    named: dict[str, Make] = {}
    for path in sorted(Path(__file__).parent.glob("inputs_*.py")):
        of = path.stem.partition("_")[2]
        if kind not in ("", of):
            continue
        module = importlib.import_module(f".{path.stem}", __package__)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                named[f"{of}.{name}"] = function
    return named


def assert_harmless(reader: Reader, name: str, may_raise: tuple[type[Exception], ...] = (CompressError,)) -> None:
    """Check that a reader runs no code of an input, ends in bounded time and memory, and raises only allowed errors.

    Args:
        reader: takes the path of the input.
        name: the input's name in `inputs`.
        may_raise: the errors that the reader documents.
    """
    outcome = play(reader, inputs(name.partition(".")[0])[name], may_raise)
    assert outcome.is_harmless, f"{name}: {'CODE RAN; ' * outcome.code_ran}{outcome.how}: {outcome.said}"


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
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_read, args=(reader, path, may_raise, there))
        child.start()
        there.close()
        how, text = _told(here)
        child.kill()
        child.join()
        return Outcome(how, text, marker.exists())


def _told(here: Connection) -> tuple[Any, str]:
    if not here.poll(_SECONDS):
        return "died", f"no end after {_SECONDS} s"
    try:
        how, text = here.recv()
    except EOFError:
        return "died", "its process is gone"
    return how, text


def _read(reader: Reader, path: Path, may_raise: tuple[type[Exception], ...], there: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _BYTES, most))
    try:
        result = reader(path)
    except may_raise as error:
        there.send(("refused", f"{type(error).__name__}: {error}"))
    except BaseException:
        there.send(("broke", traceback.format_exc(limit=-3)))
    else:
        there.send(("returned", type(result).__name__))
