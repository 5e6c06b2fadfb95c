"""Reads the runs of experiments from tracking stores: names may be patterns, and there may be several stores.

A local database is read directly. A server with our app (`mlflow server --app-name compress`) reads its own database
for us. Any other store is read through MLflow's client, with filters where the server understands them. The runs are
the same in each case.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compress.errors import StoreError, UnknownName
from mlflow_compress.records import Run, Selection
from mlflow_compress.reporting.baselines import Baseline
from mlflow_compress.reporting.baselines import read as read_baselines
from mlflow_compress.reporting.table_lines import Key
from mlflow_compress.reporting.table_text import natural
from mlflow_compress.tracking import process_identity, reading
from mlflow_compress.tracking.connection import HTTP, open_store, without_secrets
from mlflow_compress.tracking.database import PARAMS, Database, Variants, open_database
from mlflow_compress.words import ORIGINAL

if TYPE_CHECKING:
    from mlflow_compress.tracking.connection import Store

_FEW_NAMES = 20  # up to this number of models and teams, originals are selected by name
_FEW_FILTERS = 40  # beyond these, one query for all is faster
_WRITABLE = re.compile(r"[\w ./:+\-@()\[\],=]+")  # names that are safe in MLflow's filters
_DEFAULT = "mlflow.db"
_VARIANTS = "tags.`compress.role` = 'variant'"


@dataclass(frozen=True)
class Found:
    """The result of a selection.

    Attributes:
        runs: the selected variants, newest first.
        originals: variants that are not selected, but that the selected ones may be compared with.
        experiments: the names of the experiments.
        baselines: what some of the runs are compared with instead of these originals.
    """

    runs: tuple[Run, ...]
    originals: tuple[Run, ...]
    experiments: tuple[str, ...]
    baselines: tuple[Baseline, ...] = ()


def find(
    experiments: Sequence[str],
    selection: Selection,
    tracking_uris: Sequence[str] = (),
    *,
    directly: bool = True,
    baselines: Sequence[str] = (),
) -> Found:
    """Return the selected variants, and the originals that they may be compared with.

    Args:
        experiments: names, or patterns (`hw*`); each must match an experiment of some store.
        selection: the runs to select.
        tracking_uris: the stores. Empty: MLFLOW_TRACKING_URI, or MLflow's default (`mlflow.db` here).
        directly: whether to read a database, or our server's page, directly where possible; otherwise always use
            MLflow's client.
        baselines: models or runs that rows are compared with, as `baselines.read` takes them; they may be any of these
            experiments, whatever is selected.

    Raises:
        UnknownExperiment: a name matches no experiment.
        StoreError: a store can't be read, or no run has a given team, model, method or baseline.
    """
    with contextlib.ExitStack() as stack, without_collecting():
        stores = [stack.enter_context(opened(uri, directly and not selection.where)) for uri in tracking_uris or [""]]
        ids = [_matching(store.experiments(), experiments) for store in stores]
        _require(experiments, stores)
        runs = {
            run.run_id: with_its_end(run)
            for store, store_ids in zip(stores, ids, strict=True)
            if store_ids
            for run in store.runs(store_ids, selection)
        }
        originals: dict[str, Run] = {}
        # Originals of other teams are needed only where a team has none, and may be thousands. Originals with another
        # name than `original` have a tag, so all variants are read where no original has that name.
        for own, methods in itertools.product((True, False), ((ORIGINAL,), ())):
            originals_selection = _originals(selection, runs.values(), originals.values(), own)
            if originals_selection is not None:
                for store, store_ids in zip(stores, ids, strict=True):
                    candidate_runs = (
                        store.runs(store_ids, replace(originals_selection, methods=methods)) if store_ids else []
                    )
                    originals |= {run.run_id: run for run in candidate_runs if run.is_original}
        _require_names(selection, runs.values(), zip(stores, ids, strict=True))
        candidates: Iterable[Run] = runs.values()
        if baselines and selection != Selection():
            candidates = [
                run
                for store, store_ids in zip(stores, ids, strict=True)
                if store_ids
                for run in store.runs(store_ids, Selection())
            ]
        named_baselines = read_baselines(baselines, candidates, (selection.device,) if selection.device else ())
    newest = sorted(runs.values(), key=lambda run: (-run.started_ms, run.run_id))
    other_runs = tuple(run for run in originals.values() if run.run_id not in runs)
    names = tuple(dict.fromkeys(name for by_id in ids for name in by_id.values()))
    return Found(tuple(newest), other_runs, names, named_baselines)


def with_its_end(run: Run) -> Run:
    """Return a running run whose process is known to be dead as KILLED, as `Sync.dead` makes it."""
    if run.lifecycle == "RUNNING" and process_identity.is_dead(run.tags.get(process_identity.TAG, "")):
        return replace(run, lifecycle="KILLED")
    return run


def named(experiments: Sequence[str], tracking_uris: Sequence[str] = ()) -> tuple[str, Store]:
    """Return the id of the first experiment that matches a name or pattern, and its open store.

    Raises:
        UnknownExperiment: nothing matches.
        StoreError: a store can't be read.
    """
    stores = [open_store(uri or None, create=False) for uri in tracking_uris or [""]]
    for store in stores:
        for number in _matching(reading.experiments(store), experiments):
            return number, store
    all_names = [name for store in stores for name in reading.experiments(store)]
    raise UnknownExperiment(experiments[0], all_names, ", ".join(store.uri for store in stores))


class UnknownExperiment(StoreError):  # noqa: N818  (named as UnknownName is)
    """The server has no experiment with that name."""

    def __init__(self, name: str, known: Sequence[str], uri: str) -> None:
        """State the name, the server and the nearest name."""
        super().__init__(f"{UnknownName('experiment', name, known)} (on {without_secrets(uri)})")


class _Client:
    """A store that is read through MLflow's client."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri

    def experiments(self) -> dict[str, str]:
        return reading.experiments(self._store)

    def runs(self, ids: Mapping[str, str], selection: Selection) -> list[Run]:
        runs: dict[str, Run] = {}
        for query in _filters(selection):
            runs |= {run.run_id: _bare(run) for run in reading.runs(self._store, ids, query) if selection.takes(run)}
        return list(runs.values())

    def counts(self, ids: Collection[str]) -> dict[str, Variants]:
        """Return the number of variants by experiment id, as `Database.counts` does."""
        variants: dict[str, Variants] = {}
        for run in reading.runs(self._store, {number: number for number in ids}, _VARIANTS) if ids else ():
            counted = variants.get(run.experiment, Variants(0, 0, run.run_id))
            newest_ms = max(counted.newest_ms, run.started_ms)
            variants[run.experiment] = Variants(counted.count + 1, newest_ms, min(counted.run_id, run.run_id))
        return variants


class _Server(_Client):
    """A server that is asked for our own page of runs first, and read through MLflow's client where it has none."""

    def runs(self, ids: Mapping[str, str], selection: Selection) -> list[Run]:
        params = {
            "team": selection.teams,
            "model": selection.models,
            "method": selection.methods,
            "device": (selection.device,) if selection.device else (),
            "since_ms": (str(selection.since_ms),) if selection.since_ms else (),
        }
        runs = reading.served(self._store, ids, params)
        return super().runs(ids, selection) if runs is None else runs


Opened = Database | _Client  # an open store: read directly, or through MLflow's client


@contextlib.contextmanager
def opened(uri: str, directly: bool = True, *, by_ids: bool = False) -> Iterator[Opened]:
    """Open a store, directly where possible.

    Args:
        uri: its address; empty: MLFLOW_TRACKING_URI, or MLflow's default (`mlflow.db` here).
        directly: see `find`.
        by_ids: see `open_database`.

    Raises:
        StoreError: it can't be read.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address and Path(_DEFAULT).is_file():
        address = f"sqlite:///{_DEFAULT}"
    database = open_database(address, by_ids=by_ids) if directly else None
    if database is None:
        store = open_store(uri or None, create=False)
        yield _Server(store) if directly and address.startswith(HTTP) else _Client(store)
        return
    with contextlib.closing(database):
        try:
            yield database
        except StoreError:
            raise
        except Exception as error:
            reason = getattr(error, "orig", None) or type(error).__name__  # SQLAlchemy's own text repeats the statement
            raise StoreError(f"The tracking store {without_secrets(address)} can't be read: {reason}") from error


def _matching(ids: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Return the experiments that match names or patterns, in their order: names by ids."""
    return {
        ids[name]: name
        for pattern in patterns
        for name in ([pattern] if pattern in ids else sorted(fnmatch.filter(ids, pattern), key=natural))
    }


def _require(names: Sequence[str], stores: Sequence[Opened]) -> None:
    """Raise for a name that matches no experiment of any store."""
    ids = {name: number for store in stores for name, number in store.experiments().items()}
    for name in names:
        if not _matching(ids, [name]):
            raise UnknownExperiment(name, list(ids), ", ".join(store.uri for store in stores))


def _require_names(selection: Selection, runs: Iterable[Run], sources: Iterable[tuple[Opened, dict[str, str]]]) -> None:
    """Raise for a team, model or method that no run has, with the nearest name."""
    selected = list(runs)
    names_by_kind = {"team": selection.teams, "model": selection.models, "method": selection.methods}
    missing = [
        (kind, name) for kind, names in names_by_kind.items() for name in names if name not in _values(selected, kind)
    ]
    if not missing:
        return
    all_runs = [run for store, ids in sources if ids for run in store.runs(ids, Selection())]
    for kind, name in missing:
        if name not in _values(all_runs, kind):
            raise StoreError(f"No such run. {UnknownName(kind, name, _values(all_runs, kind) - {''})}")


def _values(runs: Iterable[Run], kind: str) -> set[str]:
    return {run.tags.get(kind, "") for run in runs}


def _originals(selection: Selection, runs: Iterable[Run], other_runs: Iterable[Run], own: bool) -> Selection | None:
    """Return where to look for the originals that runs still lack: among their own teams, or all teams.

    Return None where the selection included everything, or no original is missing.
    """
    if selection == Selection(models=selection.models):
        return None
    pairs = [(run, _original_of(run)) for run in (*runs, *other_runs)]
    good_originals = {original for run, original in pairs if run.is_original and _is_good(run, selection.device)}
    runs_without_original = [run for run, original in pairs if original not in good_originals]
    if not runs_without_original:
        return None
    models, teams = _values(runs_without_original, "model"), _values(runs_without_original, "team") if own else set()
    return Selection(teams=_few(teams), models=_few(models))


def _original_of(run: Run) -> tuple[object, ...]:
    """Return what identifies a run's original: a copied row can't be the original of a measured run."""
    key = Key.of(run)
    return key.work(key.team)


def _is_good(run: Run, device: str) -> bool:
    return run.tags.get("status") == "ok" and (not device or run.tags.get(f"compress.outcome.{device}") == "ok")


def _few(names: set[str]) -> tuple[str, ...]:
    """Return names to filter by; beyond a few, reading all is faster."""
    return tuple(sorted(names)) if len(names) <= _FEW_NAMES else ()


def _filters(selection: Selection) -> list[str]:
    """Write a selection in MLflow's filter language, which has no OR: one filter for each combination of names.

    A name that can't be written there is left to `Selection.takes`.
    """
    always = [_VARIANTS]
    if selection.device:
        always.append(f"tags.`compress.outcome.{selection.device}` != ''")
    if selection.since_ms:
        always.append(f"attributes.start_time >= {selection.since_ms}")
    if selection.where:
        always.append(selection.where)
    names_by_kind = {"team": selection.teams, "model": selection.models, "method": selection.methods}
    choices = [
        [f"tags.`{kind}` = '{name}'" for name in names]
        for kind, names in names_by_kind.items()
        if names and all(_WRITABLE.fullmatch(name) for name in names)
    ]
    combinations = list(itertools.product(*choices))
    if len(combinations) > _FEW_FILTERS:
        combinations = [()]
    return [" and ".join([*always, *combination]) for combination in combinations]


def _bare(run: Run) -> Run:
    """Remove what no comparison needs: MLflow's own tags, and most params."""
    return replace(
        run,
        tags={key: value for key, value in run.tags.items() if not key.startswith("mlflow.")},
        params={key: run.params[key] for key in PARAMS if key in run.params},
    )


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Pause Python's garbage collector: thousands of runs are millions of objects, and all of them stay."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
