"""The user's `load_weights`: called, and what it made of the module kept, for as long as what it is made of stays."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow_compress import folder_trees
from mlflow_compress.cache_folders import cache_folder
from mlflow_compress.errors import WeightsError
from mlflow_compress.files import sha256, whole_folder
from mlflow_compress.networks import code_files, code_state, modules_beside, outside_state, tensor_layouts
from mlflow_compress.networks.opened_files import State, state_of, watched
from mlflow_compress.networks.own_code import OwnCode, at_home
from mlflow_compress.networks.stored_weights import load_weights, save_weights

_MADE_OF, _OUTSIDE = "made_of.json", "outside.pt"
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")  # how variables of the environment are called


def fill_cached(module: Any, own: OwnCode, function: str) -> None:
    """Fill a module by `load_weights`, or with what that gave before, where all that it was made of is as it was.

    That is the file, its folder, the seed, and torch; the modules beside it that it imports; the files that it read,
    by their size and date, and the folders that it listed, by their names; the files and the environment's variables
    whose names stand in the code. What it set elsewhere than on the module is not kept: then it is called each time.

    Raises:
        WeightsError: `load_weights` changed the architecture.
    """
    import torch

    home = hashlib.sha256(os.fsencode(own.path.parent.resolve())).hexdigest()[:12]  # what is read starts there
    same = f"{own.path.stem}-{function}-{sha256(own.path)[:12]}-{home}-{own.seed}-torch{torch.__version__}-"
    entries = cache_folder("weights")
    for entry in _kept(entries, same):
        if _is_current(entry):
            load_weights(module, entry)
            tensor_layouts.apply(module, entry)
            own.outside = read_outside(entry)
            outside_state.put_back(own.outside, module)
            return
    with watched() as opened:
        _fill(module, own)
    if own.lost:  # the next time, the module would be another one
        return
    made_of = {**_states_now(own), **own.opened, **opened}
    made_of.pop(str(own.path), None)  # its content is in the name
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    for entry in _kept(entries, same):
        if not _is_current(entry):
            folder_trees.remove(entry)
    with whole_folder(entries / f"{same}{digest}") as aside:
        save_weights(module, aside)
        tensor_layouts.keep(module, aside)
        write_outside(own.outside, aside)
        (aside / _MADE_OF).write_text(json.dumps(made_of), encoding="utf-8")


def write_outside(values: outside_state.Values, folder: Path) -> None:
    """Write what is outside of the state dict, where there is something."""
    import torch

    if values:
        torch.save(values, folder / _OUTSIDE)


def read_outside(folder: Path) -> outside_state.Values:
    """Read what `write_outside` wrote, without running code from it.

    Raises:
        WeightsError: it can't be read.
    """
    import torch

    path = folder / _OUTSIDE
    if not path.is_file():
        return {}
    try:
        values: outside_state.Values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} can't be read: {type(error).__name__}") from error
    return values


def _fill(module: Any, own: OwnCode) -> None:
    """Call `load_weights`, and note what it set outside of the state dict."""
    before, built = outside_state.values_of(module), outside_state.structure_of(module)
    beside = modules_beside.modules_from(own.path.parent)
    codes = {code.__name__: code for code in beside if code is not own.code} | {own.path.name: own.code}
    places = code_state.places_of(codes, module)
    with at_home(own.path):
        own.code.load_weights(module)
    filled = outside_state.structure_of(module)
    for name in sorted(built.keys() | filled.keys()):
        if built.get(name) != filled.get(name):
            raise WeightsError(
                f"{own.path}: load_weights() changed the architecture: {name or 'the module'} was "
                f"{built.get(name, 'not there')}, and is {filled.get(name, 'gone')}. Build it so in model(): from this "
                "it is built anew when it is measured."
            )
    own.outside, own.lost = outside_state.kept_and_lost(outside_state.changed(before, outside_state.values_of(module)))
    own.lost += code_state.set_meanwhile(places, code_state.places_of(codes, module))


def _kept(entries: Path, same: str) -> Iterator[Path]:
    return iter(sorted(entry for entry in entries.glob("*") if entry.name.startswith(same) and entry.is_dir()))


def _is_current(entry: Path) -> bool:
    """Return whether all that an entry was made of is as it was."""
    try:
        made_of: dict[str, State] = json.loads((entry / _MADE_OF).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(_state_now(name) == state for name, state in made_of.items())


def _states_now(own: OwnCode) -> dict[str, State]:
    """Return the state of what the code says in its text that it reads."""
    modules = {*code_files.imported(own.path), *modules_beside.loaded_from(own.path.parent)} - {own.path}
    texts = [text for path in (own.path, *modules) for text in code_files.texts(path)]
    named = [path for path in code_files.named(own.path, texts) if path.is_file()]
    variables = [f"${text}" for text in texts if _VARIABLE.fullmatch(text)]
    return {name: _state_now(name) for name in (*map(str, (*modules, *named)), *variables)}


def _state_now(name: str) -> State:
    if not name.startswith("$"):
        return state_of(name)
    value = os.environ.get(name[1:])
    return None if value is None else hashlib.sha256(value.encode()).hexdigest()  # it may be a secret
