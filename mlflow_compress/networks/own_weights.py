"""The user's `load_weights`: called, and what it made of the module kept, for as long as what it is made of stays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress import folder_trees
from mlflow_compress.cache_folders import cache_folder
from mlflow_compress.errors import WeightsError
from mlflow_compress.files import sha256, whole_folder
from mlflow_compress.networks import code_state, modules_beside, outside_state, tensor_layouts
from mlflow_compress.networks.code_needs import needs_of, variable_state
from mlflow_compress.networks.opened_files import State, state_of, watched
from mlflow_compress.networks.own_code import OwnCode, at_home
from mlflow_compress.networks.stored_weights import load_weights, save_weights

_MADE_OF, _OUTSIDE = "made_of.json", "outside.pt"
States = dict[str, State]  # by path, and of variables of the environment by `$NAME`


def fill_cached(module: Any, own: OwnCode, function: str) -> None:
    """Fill a module by `load_weights`, or with what that gave before, where all that it was made of is as it was.

    That is the file, its folder, the seed, and torch; the modules beside it that it imports; the files that it read,
    by their size and date, and the folders that it listed, by their names; all that its text needs (see `code_needs`),
    what may be meant by names that it puts together too. What it set elsewhere than on the module is not kept: then it
    is called each time.

    Raises:
        WeightsError: `load_weights` changed the architecture.
    """
    import torch

    home = hashlib.sha256(os.fsencode(own.path.parent.resolve())).hexdigest()[:12]  # what is read starts there
    same = f"{own.path.stem}-{function}-{sha256(own.path)[:12]}-{home}-{own.seed}-torch{torch.__version__}-"
    entries = cache_folder("weights")
    told = _told_now(own)
    for entry in _kept(entries, same):
        made_of = _made_of(entry)
        if made_of is not None and made_of.is_current(told):
            load_weights(module, entry)
            tensor_layouts.apply(module, entry)
            own.outside = read_outside(entry)
            own.filled_from = frozenset(made_of.filled_from)
            outside_state.put_back(own.outside, module)
            return
    with watched() as watch:
        _fill(module, own)
    own.filled_from = frozenset(watch.read)
    if own.lost:  # the next time, the module would be another one
        return
    beside = {str(path): state_of(str(path)) for path in modules_beside.loaded_from(own.path.parent)}
    read = {**beside, **own.opened, **watch.settled()}
    read.pop(str(own.path), None)  # its content is in the name
    made_of = _MadeOf(_told_now(own), read, sorted(watch.read))
    for entry in _kept(entries, same):
        older = _made_of(entry)
        if older is None or not older.has_same_files(made_of.told):  # another value of a variable may come back
            folder_trees.remove(entry)
    with whole_folder(entries / f"{same}{made_of.digest}") as aside:
        save_weights(module, aside)
        tensor_layouts.keep(module, aside)
        write_outside(own.outside, aside)
        (aside / _MADE_OF).write_text(json.dumps(dataclasses.asdict(made_of)), encoding="utf-8")


def write_outside(values: outside_state.Values, folder: Path) -> None:
    """Write what is outside of the state dict, where there is something."""
    import torch

    if values:
        torch.save(outside_state.packed(values), folder / _OUTSIDE)


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
        return outside_state.unpacked(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise WeightsError(f"{path} can't be read: {type(error).__name__}") from error


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
                f"{built.get(name, 'not there')} and is now {filled.get(name, 'gone')}. Build this architecture in "
                "model(), which builds it again for the measurement."
            )
    own.outside, own.lost = outside_state.kept_and_lost(outside_state.changed(before, outside_state.values_of(module)))
    own.lost += code_state.set_meanwhile(places, code_state.places_of(codes, module))


def _kept(entries: Path, same: str) -> Iterator[Path]:
    return iter(sorted(entry for entry in entries.glob("*") if entry.name.startswith(same) and entry.is_dir()))


@dataclass(frozen=True)
class _MadeOf:
    """What kept weights were made of.

    Attributes:
        told: what the code's text needs.
        read: what was read, whether the text tells it or not.
        filled_from: what `load_weights` itself read.
    """

    told: States
    read: States
    filled_from: list[str]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.told, self.read], sort_keys=True).encode()).hexdigest()[:12]

    def is_current(self, told: States) -> bool:
        """Return whether all is as it was."""
        return self.told == told and self.has_same_files(told)

    def has_same_files(self, told: States) -> bool:
        """Return whether all files are as they were, whatever variables of the environment hold."""
        are_told_alike = _of_files(self.told) == _of_files(told)
        return are_told_alike and all(state_of(path) == state for path, state in self.read.items())


def _of_files(told: States) -> States:
    return {name: state for name, state in told.items() if not name.startswith("$")}


def _made_of(entry: Path) -> _MadeOf | None:
    """Read what an entry was made of; None where another version wrote it, or something else."""
    try:
        return _MadeOf(**json.loads((entry / _MADE_OF).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _told_now(own: OwnCode) -> States:
    """Return the state of what the code says in its text that it needs."""
    needs = needs_of(own.path)
    paths = (*needs.all_files(), *needs.missing)
    variables: States = {f"${name}": variable_state(name) for name in needs.variables}
    return {str(path): state_of(str(path)) for path in paths} | variables
