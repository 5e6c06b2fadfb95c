"""Tags every run that MLflow's fluent API starts with the team and the machine, where `COMPRESS_TEAM` is set.

MLflow imports this file and creates the object whenever MLflow itself is imported, so nothing here may raise. Import
only the standard library here, and everything else inside the functions.
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

    All but the team are stored under the names that our own runs use, see `run_tags`.
    """

    def __init__(self) -> None:
        """Set a user name where the system has none: MLflow tags each run with it, and raises without one."""
        with contextlib.suppress(Exception):
            from mlflow_compress import user_home

            user_home.name_user()

    def in_context(self) -> bool:
        """Return whether to tag runs: whether a team is set."""
        return bool(_team())

    def tags(self) -> dict[str, str]:
        """Return the tags; for the machine only what can be determined."""
        return {"team": _team(), **_machine()}


def _team() -> str:
    """Return the team's name in a form that can be stored: without undecodable bytes and control characters."""
    text = os.environ.get(_TEAM, "").encode(errors="replace").decode(errors="replace")
    return re.sub(HIDDEN, "", text).strip()[:_LONGEST]


@functools.cache
def _machine() -> dict[str, str]:
    tags: dict[str, str] = {}
    with contextlib.suppress(Exception):
        from mlflow_compress.version import __version__

        tags["compress.version"] = __version__
    with contextlib.suppress(Exception):
        from mlflow_compress.meters import environment

        tags |= {f"compress.env.{name}": text for name, text in environment.machine().items() if name != "version"}
    with contextlib.suppress(Exception):
        if gpus := _gpus():
            tags["compress.env.gpu_model"] = gpus[0]
    with contextlib.suppress(Exception):
        from mlflow_compress.tracking import run_tags

        tags = run_tags.kept(tags)
    return tags


def _gpus(folder: Path = _GPUS) -> list[str]:
    """Return the models of NVIDIA's GPUs from the driver's files: asking the driver itself takes a second."""
    files = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*/information"))]
    lines = [line for text in files for line in text.splitlines() if line.startswith("Model:")]
    return [line.partition(":")[2].strip() for line in lines]
