"""The names of our tags of runs, and which of them MLflow's UI shows. `logged_names.TAGS` says what each one means.

MLflow's UI shows all tags above a run's description, except those whose names begin with `mlflow.`. So it shows only
what people read and filter by (`team`, `status`, `compress.reason`, ...). What programs read is stored as
`mlflow.compress.env.torch`. Code that reads a run here gets the names without `mlflow.`, however they were stored: runs
of earlier versions have all tags under these.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

LOGGED = "compress.logged"  # this tag of a run says that all of a result is there
SECONDS = "compress.seconds"  # this one says how long the variant took
RESULT_ID, ROLE, PARENT = "compress.result_id", "compress.role", "mlflow.parentRunId"
NATIVE_FLAVOR = "compress.native_flavor"  # of a logged model: the flavor of MLflow's own that loads it, or `none: why`
NOTE, NOT_LOGGED = "mlflow.note.content", "compress.not_logged"
TAG_LIMIT = 5000  # characters; MLflow takes no more of an experiment's tag

_OURS, _HIDING = "compress.", "mlflow."
HIDDEN = f"{_HIDING}{_OURS}"  # how the names begin under which tags are kept that the UI does not show
_SHOWN = frozenset(
    {
        ROLE,
        NOT_LOGGED,
        "compress.outcome.cpu",
        "compress.outcome.gpu",
        "compress.reason",
        "compress.cautions",
        "compress.source",
        "compress.table.name",
    }
)
_SHOWN_PARTS = ("compress.reason.", "compress.imported.", "compress.cell.")
_NAME = r"(?<!mlflow\.)\bcompress\.[^\s`'\"=!<>()]+"
_ABSENT = re.compile(rf"(?P<absent>tags?\.(?P<quote>[`\"]?)(?P<name>{_NAME})(?P=quote)\s+is\s+null)", re.IGNORECASE)
_IN_FILTER = re.compile(f"{_ABSENT.pattern}|{_NAME}", re.IGNORECASE)


def kept_name(name: str) -> str:
    """Return the name under which a tag is kept, whatever it is."""
    is_hidden = name.startswith(_OURS) and name not in _SHOWN and not name.startswith(_SHOWN_PARTS)
    return f"{_HIDING}{name}" if is_hidden else name


def kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags under the names under which they are kept."""
    return {kept_name(name): text for name, text in tags.items()}


def told(tags: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return kept tags under our own names.

    Args:
        tags: names and values, in any order.
    """
    own: dict[str, str] = {}
    for name, text in tags:
        tell(own, name, text)
    return own


def tell(own: dict[str, str], name: str, text: str) -> None:
    """Add a kept tag to those that are told under our own names. Where it was kept under two, the hidden one stands.

    Args:
        own: the tags told so far.
        name: of the tag, as it is kept.
        text: its value.
    """
    if name.startswith(HIDDEN):
        own[sys.intern(name.removeprefix(_HIDING))] = text
    else:
        own.setdefault(name, text)


def filters(where: str) -> list[str]:
    """Return the filters that together find what one with our own names means, in runs of every version.

    Args:
        where: a filter in MLflow's own language.
    """
    own, today = _ABSENT.sub(_under_neither, where), _IN_FILTER.sub(_kept, where)
    return [own] if today == where else [own, today]


def _kept(part: re.Match[str]) -> str:
    """Return a part of a filter as it asks for what is kept today."""
    if part["absent"]:
        return _under_neither(part)
    return kept_name(part[0])


def _under_neither(absent: re.Match[str]) -> str:
    """Return the part of a filter that asks for runs without a tag, under whichever name."""
    name = absent["name"]
    return f"{absent[0]} and {absent[0].replace(name, kept_name(name))}"
