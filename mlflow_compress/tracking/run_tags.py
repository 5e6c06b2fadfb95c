"""The names of our tags of runs, and which of them MLflow's UI shows. `logged_names.TAGS` says what each one means.

MLflow's UI shows all tags above a run's description, except those whose names begin with `mlflow.`. So it shows only
what people read and filter by (`team`, `status`, `compress.reason`, ...). What programs read is stored as
`mlflow.compress.env.torch`. Code that reads a run here gets the names without `mlflow.`, however they were stored: runs
of earlier versions have all tags without the prefix.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

LOGGED = "compress.logged"  # tag of a run: all of a result is logged
SECONDS = "compress.seconds"  # tag of a run: how long the variant took
RESULT_ID, ROLE, PARENT = "compress.result_id", "compress.role", "mlflow.parentRunId"
NATIVE_FLAVOR = "compress.native_flavor"  # tag of a logged model: MLflow's own flavor that loads it, or `none: why`
NOTE, NOT_LOGGED = "mlflow.note.content", "compress.not_logged"
TAG_LIMIT = 5000  # characters; MLflow's limit for a tag of an experiment

_OURS, _HIDING = "compress.", "mlflow."
HIDDEN = f"{_HIDING}{_OURS}"  # prefix of the stored names of tags that the UI does not show
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
    """Return the stored name of any tag."""
    is_hidden = name.startswith(_OURS) and name not in _SHOWN and not name.startswith(_SHOWN_PARTS)
    return f"{_HIDING}{name}" if is_hidden else name


def kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags under their stored names."""
    return {kept_name(name): text for name, text in tags.items()}


def unhidden(tags: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return stored tags under our own names.

    Args:
        tags: names and values, in any order.
    """
    own: dict[str, str] = {}
    for name, text in tags:
        add_unhidden(own, name, text)
    return own


def add_unhidden(own: dict[str, str], name: str, text: str) -> None:
    """Add a stored tag to tags under our own names. Where it was stored under two names, the hidden one wins.

    Args:
        own: the tags so far.
        name: the stored name of the tag.
        text: its value.
    """
    if name.startswith(HIDDEN):
        own[sys.intern(name.removeprefix(_HIDING))] = text
    else:
        own.setdefault(name, text)


def filters(where: str) -> list[str]:
    """Return filters that together match what a filter with our own names means, in runs of every version.

    Args:
        where: a filter in MLflow's own language.
    """
    own, today = _ABSENT.sub(_under_neither, where), _IN_FILTER.sub(_kept, where)
    return [own] if today == where else [own, today]


def _kept(part: re.Match[str]) -> str:
    """Return a part of a filter for the tags as they are stored today."""
    if part["absent"]:
        return _under_neither(part)
    return kept_name(part[0])


def _under_neither(absent: re.Match[str]) -> str:
    """Return the part of a filter that matches runs without a tag, under both names."""
    name = absent["name"]
    return f"{absent[0]} and {absent[0].replace(name, kept_name(name))}"
