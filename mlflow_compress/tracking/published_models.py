"""`export`: writes the model of a run in a form that other programs load, with a three-line README."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow_compress.errors import RecipeError, StoreError, Unsupported, WeightsError
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.model_folder import Manifest
from mlflow_compress.plain_text import plain
from mlflow_compress.sockets import Published
from mlflow_compress.tracking import models, reading
from mlflow_compress.tracking.connection import Store

README = "README.md"
_MANIFEST = "manifest.json"


def export(named: str, to: Path, open_store: Callable[[], Store]) -> list[str]:
    """Write a model in a form that other programs load.

    Args:
        named: a run id, or a model folder (also as MLflow logged it) on this disk.
        to: the target, an empty or new folder.
        open_store: opens the tracking store; called only for a run.

    Returns:
        The lines of its README.

    Raises:
        RecipeError: the target is not empty, or no other program can load such a model.
        StoreError: there is no such run, or it has no model of mlflow-compress.
        WeightsError: the model's files are damaged.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RecipeError(f"{to} already exists and is not empty. Give --to a new folder.")
    if Path(named).is_dir():
        return _written(_folder_in(Path(named)), to, f"the folder {Path(named).name}")
    store = open_store()
    run = reading.run(store, named)
    uri = models.model_uri(store, named)
    if uri is None:
        raise StoreError(
            f"The run {named} ({run.name}) has no model of mlflow-compress. Measure it again with --log-model, or give "
            "the run of the variant itself."
        )
    fetched = models.FetchedModels(store)
    return _written(_folder_in(fetched.path(uri)), to, f"run {named} ({run.name})")


def _folder_in(path: Path) -> Path:
    """Return the model folder inside a logged model, or the folder itself.

    Raises:
        WeightsError: it is neither.
    """
    if (path / _MANIFEST).is_file():
        return path
    folders = [file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{_MANIFEST}")]
    if len(folders) != 1:
        raise WeightsError(f"{path} is not a model that mlflow-compress saved: it has no {_MANIFEST}.")
    return folders[0]


def _written(saved: Path, to: Path, origin: str) -> list[str]:
    """Write the files to a temporary folder first, so that a failure leaves nothing incomplete."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as temporary:
        target = Path(temporary, "model")
        target.mkdir()
        try:
            manifest, published = model_folder.publish(saved, target)
        except Unsupported as reason:
            raise RecipeError(f"The model of {origin} can't be exported: {reason}.") from reason
        lines = _lines(manifest, published, origin, saved)
        (target / README).write_text("\n\n".join(lines).replace("FOLDER", ".") + "\n", encoding="utf-8")
        if to.exists():
            to.rmdir()
        shutil.move(target, to)
    return [line.replace("FOLDER", str(to)) for line in lines]


def _lines(manifest: Manifest, published: Published, origin: str, saved: Path) -> list[str]:
    """Return the lines of the README: the model, how to load it, and how it was measured."""
    from mlflow_compress.version import installed

    options = {key: value for key, value in manifest.options.items() if value not in (None, "", False)}
    needs = f" (`pip install {' '.join(published.needs)}`)" if published.needs else ""
    note = f" {published.note}" if published.note else ""
    programs = [f"{name} {version}" for name in ("torch", *published.needs) if (version := installed(name))]
    description = (
        f"{plain(manifest.model)}, method {plain(manifest.method)}, {manifest.weights} weights; {plain(origin)}."
    )
    return [
        description,
        f"Load it{needs}: `{published.code}`.{note}",
        f"Measured by mlflow-compress as family {manifest.family} with options {json.dumps(options)}; written with "
        f"{', '.join(dict.fromkeys(programs))}.",
    ]
