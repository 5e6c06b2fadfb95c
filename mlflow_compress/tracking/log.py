"""`Log`: where the results of one command go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlflow_compress.errors import StoreError
from mlflow_compress.records import Result, Variant
from mlflow_compress.tracking import experiment_note, process_identity, reading, run_summary, writing
from mlflow_compress.tracking.connection import Store, lasting
from mlflow_compress.tracking.models import FetchedModels, names_model
from mlflow_compress.tracking.run_tags import LOGGED, NOTE, ROLE
from mlflow_compress.tracking.sending import name_unnamed
from mlflow_compress.tracking.spool import Address


class Log:
    """Where the results of one command go.

    A single variant's result goes into `mlflow run`'s own run; those of several go into runs below it.

    Args:
        store: the tracking store.
        asked: parameters as the user gave them.
        experiment: the experiment's name; None chooses as MLflow does.
        models: the models of a sweep, for its name; none when there is a single variant.
        with_model: whether to log the model itself.
        register: the name to register it under; empty for none.

    Raises:
        StoreError: the experiment can't be had.
    """

    def __init__(
        self,
        store: Store,
        asked: Mapping[str, str],
        experiment: str | None,
        models: Sequence[str],
        with_model: bool,
        register: str = "",
    ) -> None:
        self.store = store
        self._fetched = FetchedModels(store)
        self._register = register
        self._asked = asked
        self._with_model = with_model
        self._outer = os.environ.get("MLFLOW_RUN_ID", "")
        self._into_outer = bool(self._outer) and not models
        self._is_sweep_of_outer = False  # whether that run is described as this sweep
        if self._outer:
            self.experiment_id = self._join(models)
        else:
            self.experiment_id = _experiment(store, experiment)
        self.experiment = reading.experiment_name(store, self.experiment_id)
        experiment_note.describe(store, self.experiment_id, self.experiment)

    def address(self, digest: str) -> Address:
        """Return where the result of a variant with this digest goes."""
        return Address(
            lasting(self.store.uri),
            self.experiment,
            self._asked,
            run=self._outer if self._into_outer else "",
            parent="" if self._into_outer else self._outer,
            with_model=self._with_model,
            digest=digest,
            register=self._register,
        )

    def fetched(self, variant: Variant, fetching: Callable[[], object] = lambda: None) -> Path | None:
        """Fetch the model of a variant that the tracking server keeps: its worker knows no server.

        Args:
            variant: what is to be measured.
            fetching: called before it is fetched, which may take long.

        Returns:
            Where it is; None for a model that comes from elsewhere.
        """
        if variant.weights != "auto" or not names_model(variant.source):
            return None
        fetching()
        return self._fetched.path(variant.source)

    def close(self, results: Sequence[Result]) -> None:
        """Describe a sweep in the run that `mlflow run` made for it, behind what an earlier sweep told there."""
        if self._is_sweep_of_outer:
            known = reading.run(self.store, self._outer).tags.get(NOTE, "")
            told = [text for each in results if (text := run_summary.markdown(each)) not in known]
            writing.tag(self.store, self._outer, {NOTE: "\n".join(filter(None, [known, *told])), LOGGED: "complete"})

    def _join(self, models: Sequence[str]) -> str:
        """Say in the outer run who logs to it, and what it is; return the id of its experiment.

        Another command may log to it already, or have done so: what that one wrote stays.

        Raises:
            StoreError: there is no such run, it is deleted, or the server is gone.
        """
        if not reading.has_run(self.store, self._outer):
            raise StoreError(
                f"The run {self._outer}, which MLFLOW_RUN_ID names, does not exist or is deleted. Unset MLFLOW_RUN_ID, "
                "or restore the run. Nothing was measured."
            )
        known = reading.run(self.store, self._outer).tags.get(process_identity.TAG, "")
        if not known or process_identity.is_dead(known):
            writing.tag(self.store, self._outer, {process_identity.TAG: process_identity.mine()})
        if not self._into_outer and writing.take(self.store, self._outer, writing.SWEEP):
            self._is_sweep_of_outer = True
            writing.tag(self.store, self._outer, {ROLE: writing.SWEEP})
            name_unnamed(self.store, self._outer, f"sweep of {', '.join(models)}")
        return reading.experiment_of(self.store, self._outer)


def experiment_asked(store: Store, name: str | None) -> tuple[str, str]:
    """Return the id and the name of the experiment that results would go to; no id where it is still to be made.

    Args:
        store: the tracking store.
        name: the experiment's name; None chooses as MLflow does.

    Raises:
        StoreError: the server is gone.
    """
    known = reading.experiments(store)
    if not name and (found := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return found, next((each for each, number in known.items() if number == found), "")
    named = _experiment_name(name)
    return known.get(named, ""), named


def _experiment(store: Store, name: str | None) -> str:
    """Choose the experiment as MLflow does with our provider: by option, by environment, or `Default`."""
    if not name and (found := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return found
    return writing.experiment_id(store, _experiment_name(name))


def _experiment_name(name: str | None) -> str:
    environment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or os.environ.get("COMPRESS_EXPERIMENT")
    return name or environment or "Default"
