"""`PreparedOriginals`: the originals that a command has prepared, so that each is built once for all its variants."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

from mlflow_compress.folder_trees import files_below, remove
from mlflow_compress.measuring.worker import MODEL_FOLDER
from mlflow_compress.meters import cgroup
from mlflow_compress.records import Step, Variant, to_json
from mlflow_compress.words import ORIGINAL

_MOST = 3  # originals on the disk: a sweep goes from model to model
_RESTORED_SHARE = 2.0  # memory that a model may use while it is restored, relative to its size on disk
_NO_DIFFERENCE = (  # for the saved model
    *("interleave", "budget", "threads", "requires", "devices", "metrics", "limit", "published"),
)


class PreparedOriginals:
    """The folders of saved originals, by a digest of what they were built from.

    Args:
        folder: Folder for all of them; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: list[Path] = []  # the most recently used one last

    def place(self, original: Variant) -> Path:
        """Return the folder of an original; create it if missing. It contains the model if that was prepared."""
        described = {key: value for key, value in to_json(original).items() if key not in _NO_DIFFERENCE}
        name = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]
        folder = self._folder / name
        self._places = [*(older for older in self._places if older != folder), folder]
        while len(self._places) > _MOST:
            remove(self._places.pop(0))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, variant: Variant, folder: Path) -> None:
        """Keep the model of an original that was measured itself. On a full disk, nothing is kept."""
        try:
            kept_folder = self.place(original_of(variant))
            shutil.copytree(folder / MODEL_FOLDER, kept_folder / MODEL_FOLDER, copy_function=_link, dirs_exist_ok=True)
        except (OSError, shutil.Error):
            remove(self._places.pop())


def original_of(variant: Variant) -> Variant:
    """Return the original that a variant is measured in turns with."""
    return dataclasses.replace(
        variant, method=ORIGINAL, chain=(Step(ORIGINAL),), data=None, setting="", interleave=True
    )


def fits_in_memory(*models: Path) -> bool:
    """Return whether saved models fit into memory at the same time, judged by their sizes on disk."""
    import psutil

    size = sum(path.stat().st_size for model in models for path in files_below(model))
    left = psutil.virtual_memory().available
    return size * _RESTORED_SHARE <= min(left, cgroup.memory_left() or left)


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it if that fails. A link is safe because saved models are not written to again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
