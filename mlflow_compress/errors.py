"""What can go wrong, by what the caller can do about it. Each error knows its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar, Literal

from mlflow_compress.plain_text import plain

_LONGEST_NAME = 200  # characters of a wrong name that are shown, and compared with right ones
# why a variant failed, or (`machine`) was skipped, as its Result keeps it
Cause = Literal["", "machine", "measuring", "recipe", "weights"]


class CompressError(Exception):
    """Root of all errors that are reported as one message, without a traceback.

    Attributes:
        exit_code: what the commands end with.
        cause: what a variant is said to have failed for, when its worker raises this.
    """

    exit_code: ClassVar[int] = 1
    cause: ClassVar[Cause] = "measuring"


class RecipeError(CompressError):
    """What was asked for makes no sense. Nothing was run."""

    exit_code = 2
    cause = "recipe"


class UnknownName(RecipeError):  # noqa: N818  (says what is wrong without a suffix)
    """A name that nothing bears.

    Args:
        kind: what the name should have named, in the singular ("method").
        name: the name as given.
        known: all names that would have been right.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(other for other in known if other != name)
        near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listing = f" Known: {', '.join(map(plain, names))}." if names else " There are none."
        given = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        super().__init__(f"Unknown {kind} {given!r}.{hint}{listing}")
        self.kind, self.name, self.nearest = kind, name, near[0] if near else None


class WeightsError(CompressError):
    """The weights can't be had: offline, gated, missing, corrupt, or of another architecture."""

    exit_code = 3
    cause = "weights"


class WorkerError(CompressError):
    """A variant could not be measured: its process raised, crashed, was killed or ran out of time."""

    exit_code = 1


class StoreError(CompressError):
    """The tracking server can't be reached, or holds nothing of what was asked for."""

    exit_code = 4


class UnsentError(CompressError):
    """What was measured waits in the spool: the tracking server did not take it."""

    exit_code = 5


def failure(cause: Cause, reason: str) -> CompressError:
    """Return the error that tells the user that a variant failed."""
    kinds: tuple[type[CompressError], ...] = (RecipeError, WeightsError)
    return next((kind for kind in kinds if kind.cause == cause), WorkerError)(reason)


class Unsupported(Exception):  # noqa: N818  (not an error: the variant is skipped, with this reason)
    """A method does not apply to this model or device. The result is `skipped`.

    Attributes:
        cause: as the result keeps it.
    """

    cause: ClassVar[Cause] = ""


class MachineLacks(Unsupported):
    """This machine lacks what it takes: a device, a library, a compiler.

    The result is `skipped`; where one variant was asked for by name, the command fails: somebody wanted that one.
    """

    cause = "machine"


def one_line(error: object, most: int | None = 400) -> str:
    """Return what an error says as one line, of at most so many characters."""
    return plain(str(error))[:most]


def named_line(error: BaseException, most: int | None = 400) -> str:
    """Return what an error is called, and what it says as one line."""
    return f"{type(error).__name__}: {one_line(error, most)}"


def first_line(error: BaseException, most: int | None = 300) -> str:
    """Return the first line of what an error says; what it is called where it says nothing."""
    return plain((str(error).strip().splitlines() or [type(error).__name__])[0])[:most]
