"""Tags any run that MLflow's fluent API starts with the team and the machine, where `COMPRESS_TEAM` is set.

MLflow imports this file and makes the object whenever it is imported itself, so nothing here may raise: the standard
library only, and all else inside the verbs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path

from mlflow_compress.plain_text import HIDDEN

_TEAM = "COMPRESS_TEAM"
_LONGEST = 250
_GPUS = Path("/proc/driver/nvidia/gpus")


class CompressContext:
    """MLflow's `RunContextProvider`: `team`, `compress.version` and `compress.env.*`.

    All but the team are kept as those of our own runs are, see `run_tags`.
    """

    def __init__(self) -> None:
        """Give the user a name where the system has none: MLflow itself tags each run with it, or raises."""
        with contextlib.suppress(Exception):
            from mlflow_compress import user_home

            user_home.name_user()

    def in_context(self) -> bool:
        """Return whether runs are to be tagged: a team was named."""
        return bool(_team())

    def tags(self) -> dict[str, str]:
        """Return the tags; of the machine only what can be found out."""
        return {"team": _team(), **_machine()}


def _team() -> str:
    """Return the team's name, fit to be stored: bytes that are no text and control characters can't be."""
    text = os.environ.get(_TEAM, "").encode(errors="replace").decode(errors="replace")
    return re.sub(HIDDEN, "", text).strip()[:_LONGEST]


@functools.cache
def _machine() -> dict[str, str]:
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):
        from mlflow_compress.version import __version__

        found["compress.version"] = __version__
    with contextlib.suppress(Exception):
        from mlflow_compress.meters import environment

        found |= {f"compress.env.{name}": text for name, text in environment.machine().items() if name != "version"}
    with contextlib.suppress(Exception):
        if gpus := _gpus():
            found["compress.env.gpu_model"] = gpus[0]
    with contextlib.suppress(Exception):
        from mlflow_compress.tracking import run_tags

        found = run_tags.kept(found)
    return found


def _gpus(folder: Path = _GPUS) -> list[str]:
    """Return the models of NVIDIA's GPUs as the driver's files tell them: asking the driver itself takes a second."""
    files = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*/information"))]
    lines = [line for text in files for line in text.splitlines() if line.startswith("Model:")]
    return [line.partition(":")[2].strip() for line in lines]
