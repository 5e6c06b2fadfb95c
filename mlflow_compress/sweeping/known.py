"""Information from an experiment before a sweep begins: how long variants take, and which are already measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mlflow_compress.planning import requirements
from mlflow_compress.records import Variant
from mlflow_compress.sweeping import resume
from mlflow_compress.sweeping.forecast import Forecast
from mlflow_compress.tracking import reading
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Spool


@dataclass(frozen=True)
class Known:
    """What is known about the variants of a sweep.

    Attributes:
        forecast: Estimates their durations.
        digests: Digests of variants that are already measured, see `resume.digest`.
        machines: Machines that they may be measured on, for `resume.digest`.
    """

    forecast: Forecast = field(default_factory=Forecast)
    digests: Collection[str] = ()
    machines: Collection[Mapping[str, str]] = ()

    def is_measured(self, variant: Variant) -> bool:
        """Return whether a variant need not be measured."""
        return bool(self.digests) and any(resume.digest(variant, machine) in self.digests for machine in self.machines)

    def seconds(self, variant: Variant) -> float:
        """Return the seconds that a variant will take on a machine."""
        return 0.0 if self.is_measured(variant) else self.forecast.of(variant).seconds


def ask(store: Store, experiment_id: str, spool: Spool, again: bool, on_cluster: bool) -> Known:
    """Read what an experiment and the spool know.

    Args:
        store: The tracking store.
        experiment_id: Id of the experiment; empty if it does not exist yet.
        spool: Spool with unsent results.
        again: Whether to measure variants again that are already measured.
        on_cluster: Whether machines of a cluster measure. They are not known yet, so the machines of earlier results
            are used.

    Raises:
        StoreError: The server is gone.
    """
    runs = resume.finished(store, experiment_id) if experiment_id else []
    digests = set() if again or not runs else resume.digests(runs, spool, reading.experiment_name(store, experiment_id))
    machine = None if on_cluster else requirements.here()
    return Known(Forecast(runs, machine), digests, resume.machines(runs) if machine is None else [machine])
