"""The folders for files kept between commands: one for each purpose, in the platform's user cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_compress import user_home

_NAME = "mlflow-compress"


def cache_folder(purpose: str) -> Path:
    """Return the folder for a purpose: `spool`, `parcels` or `weights`.

    The first release used `~/.cache`, or XDG_CACHE_HOME, on every platform. That folder is still used as long as it is
    not empty.
    """
    import platformdirs

    user_home.settle()
    folder = platformdirs.user_cache_path(_NAME, appauthor=False) / purpose
    first = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", _NAME, purpose)
    return first if first != folder and _holds_something(first) else folder


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False
