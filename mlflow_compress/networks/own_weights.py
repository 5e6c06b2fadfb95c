"""Calls the user's `load_weights`, and caches the weights until their sources change."""

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
States = dict[str, State]  # by path, and for environment variables by `$NAME`


def fill_cached(module: Any, own: OwnCode, function: str) -> None:
    """Fill a module by `load_weights`, or from the cache if none of its sources changed.

    The sources are the file, its folder, the seed, and torch; the modules beside it that it imports; the files that it
    read, by size and date, and the folders that it listed, by their names; and all that its source needs (see
    `code_needs`), including files that composed names may match. If it sets values outside the module, nothing is
    cached, and it is called each time.

    Raises:
        WeightsError: `load_weights` changed the architecture.
    """
    import torch

    home = hashlib.sha256(os.fsencode(own.path.parent.resolve())).hexdigest()[:12]  # what is read starts there
    prefix = f"{own.path.stem}-{function}-{sha256(own.path)[:12]}-{home}-{own.seed}-torch{torch.__version__}-"
    entries = cache_folder("weights")
    needs = _needed_now(own)
    for entry in _kept(entries, prefix):
        sources = _sources_of(entry)
        if sources is not None and sources.is_current(needs):
            load_weights(module, entry)
            tensor_layouts.apply(module, entry)
            own.outside = read_outside(entry)
            own.filled_from = frozenset(sources.filled_from)
            outside_state.put_back(own.outside, module)
            return
    with watched() as watch:
        _fill(module, own)
    own.filled_from = frozenset(watch.read)
    if own.lost:  # a module filled from the cache would be a different one
        return
    module_states = {str(path): state_of(str(path)) for path in modules_beside.loaded_from(own.path.parent)}
    file_states = {**module_states, **own.opened, **watch.settled()}
    file_states.pop(str(own.path), None)  # a hash of its content is in the entry's name
    sources = _Sources(_needed_now(own), file_states, sorted(watch.read))
    for entry in _kept(entries, prefix):
        older = _sources_of(entry)
        if older is None or not older.has_same_files(sources.told):  # an old value of a variable may come back
            folder_trees.remove(entry)
    with whole_folder(entries / f"{prefix}{sources.digest}") as partial_folder:
        save_weights(module, partial_folder)
        tensor_layouts.keep(module, partial_folder)
        write_outside(own.outside, partial_folder)
        (partial_folder / _MADE_OF).write_text(json.dumps(dataclasses.asdict(sources)), encoding="utf-8")


def write_outside(values: outside_state.Values, folder: Path) -> None:
    """Write the values outside the state dict, if there are any."""
    import torch

    if values:
        torch.save(outside_state.packed(values), folder / _OUTSIDE)


def read_outside(folder: Path) -> outside_state.Values:
    """Read the values that `write_outside` wrote, without running code from the file.

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
    """Call `load_weights`, and record what it set outside the state dict."""
    values_before, built = outside_state.values_of(module), outside_state.structure_of(module)
    modules = modules_beside.modules_from(own.path.parent)
    codes = {code.__name__: code for code in modules if code is not own.code} | {own.path.name: own.code}
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
    own.outside, own.lost = outside_state.kept_and_lost(
        outside_state.changed(values_before, outside_state.values_of(module))
    )
    own.lost += code_state.set_meanwhile(places, code_state.places_of(codes, module))


def _kept(entries: Path, prefix: str) -> Iterator[Path]:
    return iter(sorted(entry for entry in entries.glob("*") if entry.name.startswith(prefix) and entry.is_dir()))


@dataclass(frozen=True)
class _Sources:
    """The sources of cached weights.

    Attributes:
        told: files and variables that the code's source needs.
        read: files that were read, whether the source shows them or not.
        filled_from: files that `load_weights` itself read.
    """

    told: States
    read: States
    filled_from: list[str]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.told, self.read], sort_keys=True).encode()).hexdigest()[:12]

    def is_current(self, needed: States) -> bool:
        """Return whether nothing changed."""
        return self.told == needed and self.has_same_files(needed)

    def has_same_files(self, needed: States) -> bool:
        """Return whether no file changed, whatever the values of environment variables are."""
        has_same_needs = _of_files(self.told) == _of_files(needed)
        return has_same_needs and all(state_of(path) == state for path, state in self.read.items())


def _of_files(states: States) -> States:
    return {name: state for name, state in states.items() if not name.startswith("$")}


def _sources_of(entry: Path) -> _Sources | None:
    """Read the sources of an entry; None if another version or program wrote it."""
    try:
        return _Sources(**json.loads((entry / _MADE_OF).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _needed_now(own: OwnCode) -> States:
    """Return the states of files and variables that the code's source needs."""
    needs = needs_of(own.path)
    paths = (*needs.all_files(), *needs.missing)
    variables: States = {f"${name}": variable_state(name) for name in needs.variables}
    return {str(path): state_of(str(path)) for path in paths} | variables
