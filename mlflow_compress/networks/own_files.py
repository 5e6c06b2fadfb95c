"""Checks that a folder from others contains only files, before it is copied, sent or loaded."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_compress.errors import WeightsError


def require_own_files(folder: Path) -> None:
    """Check that a folder from others contains only files and folders, before it is copied or loaded.

    With a link, files of this machine would be logged as files of the folder; reading a pipe would never end.

    Raises:
        WeightsError: it contains something else.
    """
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    relative = Path(entry.path).relative_to(folder)
                    kind = "a link to a file elsewhere" if entry.is_symlink() else "not a file"
                    raise WeightsError(f"{relative} in {folder} is {kind}: a model from others must hold only files.")
