"""`mlflow run . -e sweep --backend compress-ray --backend-config ray.json`: a sweep on the machines of a Ray cluster.

The configuration, with every key optional:

    {"address": "auto"}
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any

from mlflow_compress.errors import RecipeError, UnknownName

_ENTRY_POINT = "sweep"
_DEFAULTS = {"address": "auto"}


class RayBackend:
    """MLflow's `AbstractBackend` for sweeps on Ray: the command runs here and measures on the cluster's machines."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, Any],
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> Started:
        """Start the sweep as MLflow's local backend does, and return an object that waits for it.

        Raises:
            ExecutionException: the entry point is not `sweep`, the configuration has an unknown key, or a parameter
                contradicts it. MLflow shows its message without a traceback.
        """
        from mlflow.exceptions import ExecutionException

        from mlflow_compress.tracking import private_mlflow

        try:
            added = _added_params(entry_point, params, backend_config)
        except RecipeError as error:
            raise ExecutionException(str(error)) from None
        # This setting does not wait either, but does not start a second `mlflow run`.
        config = {**backend_config, "SYNCHRONOUS": True}
        process = private_mlflow.local_backend().run(
            project_uri, entry_point, {**params, **added}, version, config, tracking_uri, experiment_id
        )
        started = Started(process, tracking_uri)
        atexit.register(started.outlive)
        return started


class Started:
    """MLflow's `SubmittedRun` of a sweep: a process on this machine, and the run that it logs to.

    Args:
        process: the process that MLflow's local backend started.
        tracking_uri: the tracking server's address.
    """

    def __init__(self, process: Any, tracking_uri: str) -> None:
        self._process, self._tracking_uri = process, tracking_uri
        self._is_over = False

    @property
    def run_id(self) -> str:
        """Return the run's id."""
        return str(self._process.run_id)

    def wait(self) -> bool:
        """Wait for the sweep, end the run with its status, and return whether it succeeded."""
        from mlflow import MlflowClient

        succeeded = bool(self._process.wait())
        self._is_over = True
        client = MlflowClient(self._tracking_uri)
        if client.get_run(self.run_id).info.status == "RUNNING":
            client.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")
        return succeeded

    def get_status(self) -> str:
        """Return the status in MLflow's terms."""
        return str(self._process.get_status())

    def cancel(self) -> None:
        """Stop the sweep."""
        self._process.cancel()

    def outlive(self) -> None:
        """Wait for the sweep before this process ends: `mlflow run` waits only for its own backends."""
        if self._is_over:
            return
        try:
            self.wait()
        except KeyboardInterrupt:
            self.cancel()
            self.wait()


def _added_params(entry_point: str, params: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that the configuration adds.

    Raises:
        RecipeError: the configuration is invalid, or contradicts the parameters.
    """
    from mlflow_compress.tracking import private_mlflow

    if entry_point != _ENTRY_POINT:
        raise RecipeError(f"--backend compress-ray runs the entry point {_ENTRY_POINT}, not {entry_point}.")
    mlflow_keys = private_mlflow.backend_keys()
    settings = {key: value for key, value in config.items() if key not in mlflow_keys}
    for key, value in settings.items():
        if key not in _DEFAULTS:
            raise UnknownName("key in the configuration of compress-ray", key, _DEFAULTS)
        if not isinstance(value, str):
            raise RecipeError(f"The configuration of compress-ray: {key} must be text, not {value!r}.")
    added = {"on": "ray", **_DEFAULTS, **settings}
    for key in added.keys() & params.keys():
        raise RecipeError(
            f"-P {key}={params[key]} is set by --backend compress-ray and its configuration. Remove one of them."
        )
    return added
