"""What an experiment knows before a sweep begins: how long variants take, and which need not be measured."""

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
    """What is known of the variants of a sweep.

    Attributes:
        forecast: how long they take.
        digests: of variants that need not be measured, as `resume.digest` gives them.
        machines: that they may be measured on, as `resume.digest` takes them.
    """

    forecast: Forecast = field(default_factory=Forecast)
    digests: Collection[str] = ()
    machines: Collection[Mapping[str, str]] = ()

    def is_measured(self, variant: Variant) -> bool:
        """Return whether a variant need not be measured."""
        return bool(self.digests) and any(resume.digest(variant, machine) in self.digests for machine in self.machines)

    def seconds(self, variant: Variant) -> float:
        """Return for how long a variant will keep a machine busy."""
        return 0.0 if self.is_measured(variant) else self.forecast.of(variant).seconds


def ask(store: Store, experiment_id: str, spool: Spool, again: bool, on_cluster: bool) -> Known:
    """Ask an experiment, and the spool.

    Args:
        store: the tracking store.
        experiment_id: the experiment's id; empty: there is none yet.
        spool: where results wait.
        again: whether what is there is measured, too.
        on_cluster: whether machines of a cluster measure. Which it has is not known yet: those that measured before
            stand for them.

    Raises:
        StoreError: the server is gone.
    """
    runs = resume.finished(store, experiment_id) if experiment_id else []
    digests = set() if again or not runs else resume.digests(runs, spool, reading.experiment_name(store, experiment_id))
    here = None if on_cluster else requirements.here()
    return Known(Forecast(runs, here), digests, resume.machines(runs) if here is None else [here])
