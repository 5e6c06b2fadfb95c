"""A folder of somebody else's must hold its own files: looked at before it is copied, sent or loaded."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_compress.errors import WeightsError


def require_own_files(folder: Path) -> None:
    """Check that a folder of somebody else's holds files and folders only, before it is copied or loaded.

    A link would let files of this machine be taken for the folder's, and be logged with it; a pipe would never end.

    Raises:
        WeightsError: it holds something else.
    """
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    place = Path(entry.path).relative_to(folder)
                    kind = "a link to a file elsewhere" if entry.is_symlink() else "not a file"
                    raise WeightsError(f"{place} in {folder} is {kind}: a model from others must hold only files.")
