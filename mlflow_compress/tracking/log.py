"""`Log`: the destination of the results of one command."""

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
    """The destination of the results of one command.

    The result of a single variant goes into the run of `mlflow run`; the results of several go into runs below it.

    Args:
        store: the tracking store.
        asked: parameters as the user gave them.
        experiment: the experiment's name; None chooses as MLflow does.
        models: the models of a sweep, for its name; empty for a single variant.
        with_model: whether to log the model itself.
        register: the name of the registered model; empty for none.

    Raises:
        StoreError: the experiment is not available.
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
        self._is_sweep_of_outer = False  # whether the outer run is described as this sweep
        if self._outer:
            self.experiment_id = self._join(models)
        else:
            self.experiment_id = _experiment(store, experiment)
        self.experiment = reading.experiment_name(store, self.experiment_id)
        experiment_note.describe(store, self.experiment_id, self.experiment)

    def address(self, digest: str) -> Address:
        """Return the address for the result of a variant with this digest."""
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
        """Fetch a variant's model from the tracking server, because its worker has no access to the server.

        Args:
            variant: the variant to measure.
            fetching: called before the download, which may take long.

        Returns:
            The path of the model; None for a model from elsewhere.
        """
        if variant.weights != "auto" or not names_model(variant.source):
            return None
        fetching()
        return self._fetched.path(variant.source)

    def close(self, results: Sequence[Result]) -> None:
        """Describe a sweep in the run that `mlflow run` made for it, after the notes of earlier sweeps."""
        if self._is_sweep_of_outer:
            note = reading.run(self.store, self._outer).tags.get(NOTE, "")
            summaries = [text for result in results if (text := run_summary.markdown(result)) not in note]
            writing.tag(
                self.store, self._outer, {NOTE: "\n".join(filter(None, [note, *summaries])), LOGGED: "complete"}
            )

    def _join(self, models: Sequence[str]) -> str:
        """Mark the outer run with this process and its role; return the id of its experiment.

        Another command may log to it already, or may have done so: its tags stay.

        Raises:
            StoreError: the run does not exist, is deleted, or the server is gone.
        """
        if not reading.has_run(self.store, self._outer):
            raise StoreError(
                f"The run {self._outer} in MLFLOW_RUN_ID does not exist or is deleted. Unset MLFLOW_RUN_ID, or restore "
                "the run. Nothing was measured."
            )
        process = reading.run(self.store, self._outer).tags.get(process_identity.TAG, "")
        if not process or process_identity.is_dead(process):
            writing.tag(self.store, self._outer, {process_identity.TAG: process_identity.mine()})
        if not self._into_outer and writing.take(self.store, self._outer, writing.SWEEP):
            self._is_sweep_of_outer = True
            writing.tag(self.store, self._outer, {ROLE: writing.SWEEP})
            name_unnamed(self.store, self._outer, f"sweep of {', '.join(models)}")
        return reading.experiment_of(self.store, self._outer)


def experiment_asked(store: Store, name: str | None) -> tuple[str, str]:
    """Return the id and the name of the experiment for results; the id is empty where it does not exist yet.

    Args:
        store: the tracking store.
        name: the experiment's name; None chooses as MLflow does.

    Raises:
        StoreError: the server is gone.
    """
    ids = reading.experiments(store)
    if not name and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return experiment_id, next((experiment for experiment, number in ids.items() if number == experiment_id), "")
    chosen_name = _experiment_name(name)
    return ids.get(chosen_name, ""), chosen_name


def _experiment(store: Store, name: str | None) -> str:
    """Return the id of the experiment, chosen as MLflow does with our provider: option, environment, or `Default`."""
    if not name and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return experiment_id
    return writing.experiment_id(store, _experiment_name(name))


def _experiment_name(name: str | None) -> str:
    environment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or os.environ.get("COMPRESS_EXPERIMENT")
    return name or environment or "Default"
