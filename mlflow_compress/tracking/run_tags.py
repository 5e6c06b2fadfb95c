"""The names of our tags of runs, and which of them MLflow's UI shows.

* What a person reads and filters by: `team`, `model`, `method`, `status`; `compress.role` (`variant`, `sweep`, ...),
  `compress.outcome.cpu` and `.gpu` (`ok`, `skipped`, `failed`), `compress.reason`, `compress.reason.cpu` and `.gpu`,
  `compress.cautions` (codes, with commas), `compress.not_logged` (what the server refused, and why); of a row of a
  hand-made table `compress.source` (`imported`), `compress.imported.from`, `.line` and `.remarks`,
  `compress.table.name`, and `compress.cell.*` (its cells as they were written).
* What programs read: `compress.schema`, `compress.weights`, `compress.batch_size`, `compress.setting` (`tokens=64`),
  `compress.original` (`yes`, `no`), `compress.outcome.quality`, for each metric `compress.protocol.wer` (how it was
  scored) and `compress.metric.wer` (its label, scale, direction and rank, as JSON); `compress.caution.1`, ... (each
  one's words in every language, as JSON); `compress.seconds` (how long it took); `compress.env.*` for the machine and
  its libraries (`cores`: what affinity and a container leave of them, `cpu_flags`: the instructions that matter to
  kernels, `runtime`: the engine that executes the model, and its version, `gpu_power_limit_w`, `gpu_tf32`, ...);
  `compress.work`: a digest of what one timed call does, and its inputs: of two runs with different ones, speeds say
  nothing of each other; `compress.vram_source`: whose figure `gpu/vram_peak_mib` is (`allocator`: torch's, `driver`: of
  the whole process); `compress.result_id`, `compress.variant_digest`, `compress.process` (who logs it),
  `compress.logged` (`complete` when all of it is there); of a hand-made table `compress.import_id` (of a row's text)
  and `compress.table` (a fingerprint of the table: only rows of one are compared).

MLflow's UI shows all tags above a run's description, but those whose names begin with `mlflow.`. So the second kind is
kept under names that do: `mlflow.compress.env.torch`. Whoever reads a run here gets the names above, in whichever way
they were kept: runs of earlier versions have all tags under these.
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
