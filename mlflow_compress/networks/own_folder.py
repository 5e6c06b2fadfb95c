"""A user's code in a model folder: the file, the files beside it that it needs, and how the architecture is built.

A file without others is saved as `model.py`. A file that needs others is saved in `code/` under its own name, with the
others around it as before. It needs the modules that it imports, and the files below its folder that it read while it
ran, built the model, made a batch and predicted, or that its source names for this. Hidden files are not saved, nor
files that only functions name that are not called again: a checkpoint that `load_weights` reads is in the weights.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.model import LayerSizes
from mlflow_compress.networks import code_files, modules_beside
from mlflow_compress.networks.code_needs import WEIGHTS, texts_in_use
from mlflow_compress.networks.exported_modules import CallForm
from mlflow_compress.networks.own_code import NOT_RESTORED, Built, OwnCode, came_with_us, loaded
from mlflow_compress.networks.own_weights import read_outside, write_outside

MOST_BYTES = 64 * 2**20  # size of the files beside it that are neither Python nor checkpoints of `model()`
_CHECKPOINTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")  # their tensors are in a module's state dict
ALONE = "model.py"  # name of a file without others
_WITH_OTHERS = "code"
_FORM = "gives.json"  # form of the output, only for an exported module
_CHANGES = "architecture.json"
_CALLED_AGAIN = ("batch", "predict", "metrics")
_READ_AGAIN = "read_again"


def keep(own: OwnCode, structure: Mapping[str, LayerSizes], folder: Path) -> str:
    """Write everything that `restored` needs into a model folder.

    Returns:
        The weight files that the code reads while it builds the model, as text: they are saved although the model's
        weights contain their tensors too. Empty: none.

    Raises:
        RecipeError: the code needs more files beside it than can be saved.
    """
    own_files = files_beside(own)
    read_again = [path for path in own_files if _is_read_to_build(own, path)]
    code_path = f"{_WITH_OTHERS}/{own.path.name}" if own_files else ALONE
    for path in own_files:
        copy = folder / _WITH_OTHERS / path.relative_to(own.path.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.copyfile(own.path, folder / code_path)
    if own.form is not None:
        (folder / _FORM).write_text(json.dumps(dataclasses.asdict(own.form)), encoding="utf-8")
    changes: dict[str, Any] = {"code": code_path, "seed": own.seed}
    if structure:
        changes["structure"] = structure
    if own.lost:
        changes["lost"] = own.lost
    if read_again:
        changes[_READ_AGAIN] = [f"{_WITH_OTHERS}/{path.relative_to(own.path.parent).as_posix()}" for path in read_again]
    if own.built is not None:
        changes["built"] = dataclasses.asdict(own.built)
    (folder / _CHANGES).write_text(json.dumps(changes), encoding="utf-8")
    write_outside(own.outside, folder)
    mib = sum(path.stat().st_size for path in read_again) / 2**20
    return (
        f"{', '.join(path.name for path in read_again)} ({mib:.1f} MiB, not counted in its size)" if read_again else ""
    )


def weights_read_again(folder: Path) -> list[Path]:
    """Return the weight files in a model folder that code reads to build the model: its weights contain them too."""
    path = folder / _CHANGES
    changes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = changes.get(_READ_AGAIN, []) if isinstance(changes, dict) else []  # other families may write anything
    return [folder / name for name in names]


def place_of(folder: Path) -> Path:
    """Return the path of the user's file, relative to the model folder.

    Raises:
        Unsupported: the model is more than the file's architecture with the state dict.
    """
    path = folder / _CHANGES
    changes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if {"structure", "built", "lost"} & set(changes) or (folder / _FORM).is_file() or read_outside(folder):
        raise Unsupported(
            "the saved model differs from what the file's function builds, and only this package can restore it"
        )
    code_path = Path(str(changes.get("code", ALONE)))
    if code_path.is_absolute() or ".." in code_path.parts or not code_path.stem.isidentifier():
        raise Unsupported(f"its file {code_path.name!r:.60} can't be imported by name")
    return code_path


def restored(folder: Path) -> tuple[OwnCode, dict[str, LayerSizes]]:
    """Run the code in a model folder; return it, and the layers that differ from those that it builds.

    Raises:
        WeightsError: the folder is damaged.
        RecipeError: the code can't be run.
    """
    form, changed = folder / _FORM, folder / _CHANGES
    changes = json.loads(changed.read_text(encoding="utf-8")) if changed.is_file() else {}
    path = folder / changes.get("code", ALONE)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise WeightsError(f"{changed} names code outside the model's folder: {path}.")
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
    """Return the files below the folder of a user's file that are needed to build the model and to predict.

    Raises:
        RecipeError: the files other than Python are larger than `MOST_BYTES` together.
    """
    if came_with_us(own.path):  # it needs no files, and files beside a copy may be from others
        return []
    folder = own.path.parent
    modules = [*code_files.imported(own.path), *modules_beside.loaded_from(folder)]
    code = list(dict.fromkeys(path for path in modules if path != own.path))
    opened = dict.fromkeys(map(Path, own.opened))
    builder = own.built.function if own.built is not None else own.function
    unused = {*NOT_RESTORED, "student"} - {builder}
    texts = texts_in_use(own.path, code, unused, {builder, *_CALLED_AGAIN})
    places = [named for text in texts if (named := code_files.place_of(own.path, text)) is not None]
    data_files = [
        path
        for path in opened | dict.fromkeys(named for named in places if not _is_filled_from(own, named))
        if path.is_file() and code_files.is_own(path, folder) and path.suffix not in (".py", ".pyc")
    ]
    if own.form is not None:  # an exported architecture is not built again
        data_files = [path for path in data_files if not _is_read_to_build(own, path) or str(path) in own.read_when_run]
    capped = [path for path in data_files if not _is_read_to_build(own, path)]
    if (size := sum(path.stat().st_size for path in capped)) > MOST_BYTES:
        largest = max(capped, key=lambda path: path.stat().st_size)
        raise RecipeError(
            f"{own.path} needs {size / 2**20:.0f} MiB of data beside it to build and use the model, such as "
            f"{largest.name}: at most {MOST_BYTES / 2**20:.0f} MiB are saved with a model. Read weights in "
            "load_weights(module) and data in samples() or training(): a restored model does not call these."
        )
    return [*code, *data_files]


def _is_read_to_build(own: OwnCode, path: Path) -> bool:
    """Return whether a file is a checkpoint that was read while the model was built: its weights contain it too."""
    return path.suffix in _CHECKPOINTS and str(path) in (own.read_to_build or ())


def _is_filled_from(own: OwnCode, path: Path) -> bool:
    """Return whether a file contains weights that are already in the module."""
    if path.suffix not in WEIGHTS:
        return False
    return hasattr(own.code, "load_weights") if own.filled_from is None else str(path) in own.filled_from
