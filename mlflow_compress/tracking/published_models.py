"""`export`: writes the model that a run logged as others load it, with three lines that say what it is."""

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
    """Write a model as others load it.

    Args:
        named: a run's id, or a model folder (or what MLflow logged of one) on this disk.
        to: an empty or new folder.
        open_store: opens the tracking store; called only for a run.

    Returns:
        The lines of its README.

    Raises:
        RecipeError: the target is not empty, or no other program loads such a model.
        StoreError: there is no such run, or it logged no model of ours.
        WeightsError: the model's files are damaged.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RecipeError(f"{to} is there already and is not empty: give --to a new folder.")
    if Path(named).is_dir():
        return _written(_folder_in(Path(named)), to, f"the folder {Path(named).name}")
    store = open_store()
    run = reading.run(store, named)
    uri = models.model_uri(store, named)
    if uri is None:
        raise StoreError(
            f"The run {named} ({run.name}) logged no model of mlflow-compress: measure it again with --log-model, or "
            "give the run of the variant itself."
        )
    fetched = models.FetchedModels(store)
    return _written(_folder_in(fetched.path(uri)), to, f"run {named} ({run.name})")


def _folder_in(path: Path) -> Path:
    """Return the model folder in what MLflow logged, or the folder itself.

    Raises:
        WeightsError: it is neither.
    """
    if (path / _MANIFEST).is_file():
        return path
    found = [each.parent for pattern in ("*", "*/*") for each in path.glob(f"{pattern}/{_MANIFEST}")]
    if len(found) != 1:
        raise WeightsError(f"{path} holds no model that mlflow-compress saved: it has no {_MANIFEST}.")
    return found[0]


def _written(saved: Path, to: Path, origin: str) -> list[str]:
    """Write the files beside their place first, so that a failure leaves nothing half done."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as temporary:
        made = Path(temporary, "model")
        made.mkdir()
        try:
            manifest, published = model_folder.publish(saved, made)
        except Unsupported as reason:
            raise RecipeError(f"The model of {origin} can't be exported: {reason}.") from reason
        lines = _lines(manifest, published, origin, saved)
        (made / README).write_text("\n\n".join(lines).replace("FOLDER", ".") + "\n", encoding="utf-8")
        if to.exists():
            to.rmdir()
        shutil.move(made, to)
    return [line.replace("FOLDER", str(to)) for line in lines]


def _lines(manifest: Manifest, published: Published, origin: str, saved: Path) -> list[str]:
    """Return the README: what it is, how it is loaded, and what measured it."""
    from mlflow_compress.version import installed

    trusted = {key: value for key, value in manifest.options.items() if value not in (None, "", False)}
    needs = f" (`pip install {' '.join(published.needs)}`)" if published.needs else ""
    note = f" {published.note}" if published.note else ""
    ran = [f"{name} {version}" for name in ("torch", *published.needs) if (version := installed(name))]
    what = f"{plain(manifest.model)}, method {plain(manifest.method)}, {manifest.weights} weights; {plain(origin)}."
    return [
        what,
        f"Load it{needs}: `{published.code}`.{note}",
        f"Measured by mlflow-compress as family {manifest.family} with options {json.dumps(trusted)}; written with "
        f"{', '.join(dict.fromkeys(ran))}.",
    ]
