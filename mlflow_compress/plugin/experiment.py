"""Makes MLflow log to the experiment `COMPRESS_EXPERIMENT` unless another one is chosen.

MLflow imports this file and creates the object whenever MLflow itself is imported, so nothing here may raise. Import
only the standard library here, and everything else inside the functions.
"""

from __future__ import annotations

import os

_EXPERIMENT = "COMPRESS_EXPERIMENT"


class CompressExperiment:
    """MLflow's `DefaultExperimentProvider`; MLflow's own variables and `set_experiment` have priority over it."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}

    def in_context(self) -> bool:
        """Return whether an experiment is set."""
        return bool(_name())

    def get_experiment_id(self) -> str:
        """Return the experiment's id; create the experiment if there is none with that name.

        Raises:
            StoreError: it is not available. MLflow reports this and logs to its own default.
        """
        import mlflow

        from mlflow_compress.tracking import writing
        from mlflow_compress.tracking.connection import Store

        uri, name = mlflow.get_tracking_uri(), _name()
        if (uri, name) not in self._ids:
            self._ids[uri, name] = writing.experiment_id(Store(mlflow.MlflowClient(uri), uri), name)
        return self._ids[uri, name]


def _name() -> str:
    return os.environ.get(_EXPERIMENT, "").encode(errors="replace").decode(errors="replace").strip()
