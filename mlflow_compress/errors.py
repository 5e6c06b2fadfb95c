"""The errors of this package, grouped by what the caller can do about them. Each has an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar, Literal

from mlflow_compress.plain_text import plain

_LONGEST_NAME = 200  # characters of a wrong name that are shown, and compared with known names
# why a variant failed, or (`machine`) was skipped, as in its Result
Cause = Literal["", "machine", "measuring", "recipe", "weights"]


class CompressError(Exception):
    """Base class of all errors that are reported as one message, without a traceback.

    Attributes:
        exit_code: Exit code of the commands.
        cause: Cause in the result of a variant whose worker raises this.
    """

    exit_code: ClassVar[int] = 1
    cause: ClassVar[Cause] = "measuring"


class RecipeError(CompressError):
    """A recipe, option or argument is invalid. Nothing was run."""

    exit_code = 2
    cause = "recipe"


class UnknownName(RecipeError):  # noqa: N818  (says what is wrong without a suffix)
    """An unknown name.

    Args:
        kind: Kind of thing that was named, in the singular ("method").
        name: The unknown name.
        known: All known names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(candidate for candidate in known if candidate != name)
        matches = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1, cutoff=0.5)
        hint = f" Did you mean {matches[0]!r}?" if matches else ""
        listing = f" Known: {', '.join(map(plain, names))}." if names else " There are none."
        short_name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        super().__init__(f"Unknown {kind} {short_name!r}.{hint}{listing}")
        self.kind, self.name, self.nearest = kind, name, matches[0] if matches else None


class WeightsError(CompressError):
    """The weights are not available: offline, gated, missing, corrupt, or of another architecture."""

    exit_code = 3
    cause = "weights"


class WorkerError(CompressError):
    """A variant could not be measured: its process raised, crashed, was killed or ran out of time."""

    exit_code = 1


class StoreError(CompressError):
    """The tracking server can't be reached, or has no matching data."""

    exit_code = 4


class UnsentError(CompressError):
    """Results are kept in the spool because the tracking server did not accept them."""

    exit_code = 5


def failure(cause: Cause, reason: str) -> CompressError:
    """Return the error to raise for a failed variant."""
    kinds: tuple[type[CompressError], ...] = (RecipeError, WeightsError)
    return next((kind for kind in kinds if kind.cause == cause), WorkerError)(reason)


class Unsupported(Exception):  # noqa: N818  (not an error: the variant is skipped, with this reason)
    """A method does not apply to this model or device. The result is `skipped`.

    Attributes:
        cause: Cause in the result.
    """

    cause: ClassVar[Cause] = ""


class MachineLacks(Unsupported):
    """This machine lacks a device, a library or a compiler.

    The result is `skipped`. If the user named the variant, the command fails.
    """

    cause = "machine"


def one_line(error: object, most: int | None = 400) -> str:
    """Return an error's message as one line of at most `most` characters."""
    return plain(str(error))[:most]


def named_line(error: BaseException, most: int | None = 400) -> str:
    """Return an error's class name and message as one line."""
    return f"{type(error).__name__}: {one_line(error, most)}"


def first_line(error: BaseException, most: int | None = 300) -> str:
    """Return the first line of an error's message; its class name if it has no message."""
    return plain((str(error).strip().splitlines() or [type(error).__name__])[0])[:most]
