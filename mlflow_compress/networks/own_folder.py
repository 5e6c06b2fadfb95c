"""A user's code in a model folder: the file, what it needs of the files beside it, and how the architecture is built.

A file that stands alone is `model.py`. One that needs others lies in `code/` under its own name, and they lie around it
as they did. What is needed are the modules that it imports, and the files below its folder that it read while it was
run and built the model, or names outside of the functions that are not called again. Hidden files stay where they are.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.model import LayerSizes
from mlflow_compress.networks import code_files, modules_beside
from mlflow_compress.networks.exported_modules import CallForm
from mlflow_compress.networks.own_code import Built, OwnCode, came_with_us, loaded
from mlflow_compress.networks.own_weights import read_outside, write_outside

MOST_BYTES = 64 * 2**20  # of the files beside it that are no Python
_ALONE, _WITH_OTHERS = "model.py", "code"
_FORM = "gives.json"  # of what it gives; only of an exported module
_CHANGES = "architecture.json"
_NOT_CALLED_AGAIN = ("load_weights", "samples", "training", "student")


def keep(own: OwnCode, structure: Mapping[str, LayerSizes], folder: Path) -> None:
    """Write all that `restored` needs into a model folder.

    Raises:
        RecipeError: the code needs more beside it than is kept.
    """
    beside = files_beside(own)
    place = f"{_WITH_OTHERS}/{own.path.name}" if beside else _ALONE
    for path in beside:
        copy = folder / _WITH_OTHERS / path.relative_to(own.path.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.copyfile(own.path, folder / place)
    if own.form is not None:
        (folder / _FORM).write_text(json.dumps(dataclasses.asdict(own.form)), encoding="utf-8")
    changes: dict[str, Any] = {"code": place, "seed": own.seed}
    if structure:
        changes["structure"] = structure
    if own.lost:
        changes["lost"] = own.lost
    if own.built is not None:
        changes["built"] = dataclasses.asdict(own.built)
    (folder / _CHANGES).write_text(json.dumps(changes), encoding="utf-8")
    write_outside(own.outside, folder)


def restored(folder: Path) -> tuple[OwnCode, dict[str, LayerSizes]]:
    """Run the code in a model folder; return it, and the layers that are not as it builds them.

    Raises:
        WeightsError: the folder is damaged.
        RecipeError: the code can't be run.
    """
    form, changed = folder / _FORM, folder / _CHANGES
    changes = json.loads(changed.read_text(encoding="utf-8")) if changed.is_file() else {}
    path = folder / changes.get("code", _ALONE)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise WeightsError(f"{changed} names code outside of the model's folder: {path}.")
    own = loaded(path, changes.get("seed", 0), is_restored=True)
    own.outside = read_outside(folder)
    own.lost = changes.get("lost", [])
    if form.is_file():
        own.form = CallForm.of_json(json.loads(form.read_text(encoding="utf-8")))
        own.passing = own.form.passing
    if "built" in changes:
        own.built = Built(**changes["built"])
    return own, changes.get("structure", {})


def files_beside(own: OwnCode) -> list[Path]:
    """Return the files below the folder of a user's file that it needs to be built and to predict.

    Raises:
        RecipeError: those that are no Python are larger than `MOST_BYTES` together.
    """
    if came_with_us(own.path):  # it needs nothing, and what lies beside a copy of it is somebody else's
        return []
    folder = own.path.parent
    modules = [*code_files.imported(own.path), *modules_beside.loaded_from(folder)]
    code = dict.fromkeys(path for path in modules if path != own.path)
    texts = [text for path in (own.path, *code) for text in code_files.texts(path, _NOT_CALLED_AGAIN)]
    read = [Path(path) for path in own.opened] + code_files.named(own.path, texts)
    others = dict.fromkeys(
        path
        for path in read
        if path.is_file() and code_files.is_own(path, folder) and path.suffix not in (".py", ".pyc")
    )
    if (size := sum(path.stat().st_size for path in others)) > MOST_BYTES:
        largest = max(others, key=lambda path: path.stat().st_size)
        raise RecipeError(
            f"{own.path} reads {size / 2**20:.0f} MiB beside it while it builds the model, such as {largest.name}: at "
            f"most {MOST_BYTES / 2**20:.0f} MiB are kept with a model. Read weights in load_weights(module), which is "
            "not called again when the model is restored."
        )
    return [*code, *others]
