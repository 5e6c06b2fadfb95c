"""Adds MLflow's own flavor to a logged model, so that others can load it without this package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mlflow_compress.errors import CompressError, Unsupported
from mlflow_compress.networks import model_folder


def add_native_flavor(about: Any, folder: Path, written: Path) -> str:
    """Name in MLmodel the MLflow flavor that can load a model from the files that are already there.

    Args:
        about: MLflow's description of the model, with the flavor `python_function`.
        folder: the model folder.
        written: the model as MLflow saved it.

    Returns:
        The flavor's name, or `none` and the reason.
    """
    try:
        native = model_folder.native_flavor(folder)
    except (CompressError, Unsupported) as reason:
        return f"none: {reason}"
    data_path = about.flavors["python_function"]["data"]
    settings = {name: _placed(value, data_path) for name, value in native.settings.items()}
    about.add_flavor(native.name, **settings)
    for part, names in native.copies.items():
        (written / part).mkdir(parents=True)
        for name in names:
            copy = shutil.copytree if (folder / name).is_dir() else shutil.copyfile
            copy(folder / name, written / part / name)
    about.save(str(written / "MLmodel"))
    return native.name


def _placed(value: Any, data_path: str) -> Any:
    return value.replace("FOLDER", data_path) if isinstance(value, str) else value
