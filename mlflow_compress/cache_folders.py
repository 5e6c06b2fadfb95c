"""Where files are kept between commands: one folder for each purpose, in the user's cache folder of the platform."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_compress import user_home

_NAME = "mlflow-compress"


def cache_folder(purpose: str) -> Path:
    """Return the folder for a purpose: `spool`, `parcels` or `weights`.

    The first release kept everything in `~/.cache`, or XDG_CACHE_HOME, on every platform. What is still there is found:
    that folder is used as long as it holds something.
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
