"""Has MLflow log to the experiment `COMPRESS_EXPERIMENT` where nobody has chosen another one.

MLflow imports this file and makes the object whenever it is imported itself, so nothing here may raise: the standard
library only, and all else inside the verbs.
"""

from __future__ import annotations

import os

_EXPERIMENT = "COMPRESS_EXPERIMENT"


class CompressExperiment:
    """MLflow's `DefaultExperimentProvider`; MLflow's own variables and `set_experiment` come before it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def in_context(self) -> bool:
        """Return whether an experiment was named."""
        return bool(_name())

    def get_experiment_id(self) -> str:
        """Return the experiment's id; make the experiment if there is none of that name.

        Raises:
            StoreError: it can't be had. MLflow says so, and logs to its own default.
        """
        import mlflow

        from mlflow_compress.tracking import writing
        from mlflow_compress.tracking.connection import Store

        uri, name = mlflow.get_tracking_uri(), _name()
        if (uri, name) not in self._known:
            self._known[uri, name] = writing.experiment_id(Store(mlflow.MlflowClient(uri), uri), name)
        return self._known[uri, name]


def _name() -> str:
    return os.environ.get(_EXPERIMENT, "").encode(errors="replace").decode(errors="replace").strip()
