"""Logged models: a model folder as an MLflow model, its numbers, and its registered versions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.networks.own_files import require_own_files
from mlflow_compress.records import Result, finite
from mlflow_compress.tracking import private_mlflow
from mlflow_compress.tracking.connection import Store, quiet, refusals
from mlflow_compress.tracking.native_flavor import add_native_flavor
from mlflow_compress.tracking.run_tags import NATIVE_FLAVOR, ROLE
from mlflow_compress.tracking.writing import METRICS_PER_CALL, PROGRAM, cut, parts

_OURS = "variant"

if TYPE_CHECKING:
    import tempfile

    from mlflow_compress.measuring.input_example import Example


class FetchedModels:
    """Models downloaded from a store, each once; they are deleted with this object.

    Args:
        store: the tracking store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folders: dict[str, tuple[Path, tempfile.TemporaryDirectory[str]]] = {}

    def path(self, uri: str) -> Path:
        """Download a model with an MLflow name (`models:/NAME/1`, `runs:/ID/model`), unless it was downloaded already.

        Raises:
            StoreError: there is no model with that name.
            WeightsError: it contains links, which would be followed on this machine while it is copied.
        """
        import tempfile

        if uri not in self._folders:
            with quiet(), refusals(self._store.uri):
                import mlflow

                local_path = _on_this_machine(uri, self._store.uri)
            if local_path is not None:
                require_own_files(local_path)
            with quiet(), refusals(self._store.uri):
                folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-model-")
                path = mlflow.artifacts.download_artifacts(uri, dst_path=folder.name, tracking_uri=self._store.uri)
                self._folders[uri] = (Path(path), folder)
        return self._folders[uri][0]


def _on_this_machine(uri: str, tracking_uri: str) -> Path | None:
    """Return the folder of a model that MLflow keeps on a disk of this machine; None if a server sends it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(uri, tracking_uri=tracking_uri)
    while hasattr(repository, "repo"):  # repositories of models and of runs wrap another one
        repository = repository.repo
    folder = Path(getattr(repository, "artifact_dir", None) or "")
    return folder if folder.is_absolute() and folder.is_dir() else None


def names_model(source: str) -> bool:
    """Return whether a text names a model on a tracking server."""
    return source.startswith(("models:/", "runs:/"))


def write_model(
    store: Store, run_id: str, folder: Path, requirements: Sequence[str], example: Example | None = None
) -> str:
    """Log a saved model folder as an MLflow model for `mlflow.pyfunc.load_model`, unless the run has one.

    Where one of MLflow's own flavors can load the same files (`mlflow.transformers.load_model`), MLmodel names it too.
    A tag of the logged model states the flavor, or why there is none.

    Args:
        store: the tracking store.
        run_id: the run of the model.
        folder: the model folder that was measured.
        requirements: pip requirements; inferring them would take minutes.
        example: its input example, which determines the signature.

    Returns:
        The logged model's id.
    """
    import tempfile

    with quiet(), refusals(store.uri), private_mlflow.by_names_alone(), tempfile.TemporaryDirectory() as temporary:
        import mlflow
        from mlflow.models import Model

        run = store.client.get_run(run_id)
        model = _model_of(store, run)
        if model.status != "READY":
            path = str(Path(temporary, "model"))
            mlflow_model = Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id)
            mlflow.pyfunc.save_model(
                path,
                loader_module="mlflow_compress.pyfunc",
                data_path=str(folder),
                pip_requirements=list(requirements),
                mlflow_model=mlflow_model,
                **(_shown(example) if example else {}),
            )
            flavor = add_native_flavor(mlflow_model, folder, Path(path))
            store.client.set_logged_model_tags(model.model_id, cut({NATIVE_FLAVOR: flavor}))
            try:
                store.client.log_model_artifacts(model.model_id, path)
            except Exception:
                store.client.finalize_logged_model(model.model_id, "FAILED")
                raise
            store.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)


def register(store: Store, model_id: str, name: str, result: Result) -> None:
    """Add a logged model as a version of a registered model, once; create the registered model where needed."""
    from mlflow.exceptions import MlflowException

    variant, source = result.variant, f"models:/{model_id}"
    with quiet(), refusals(store.uri):
        try:
            store.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        quoted = name.replace("'", "\\'")
        versions = store.client.search_model_versions(f"name = '{quoted}'")
        if not any(source in (version.source, f"models:/{version.model_id}") for version in versions):
            tags = {"team": variant.team, "model": variant.model, "method": variant.method}
            store.client.create_model_version(name, source, run_id=None, tags=cut(tags), model_id=model_id)


def link(store: Store, run_id: str, model_id: str, result: Result) -> None:
    """Add the numbers of a result to a logged model. Repeating this changes nothing."""
    from mlflow.entities import Metric

    now = int(result.ended_s * 1000)
    with refusals(store.uri):
        metrics = [
            Metric(name, value, now, 0, model_id=model_id, run_id=run_id)
            for name, value in finite(result.measurements).items()
        ]
        for part in parts(metrics, METRICS_PER_CALL):
            store.client.log_batch(run_id, metrics=part)


def model_uri(store: Store, run_id: str) -> str | None:
    """Return MLflow's URI of the model that a run logged; None: it logged none, or another package did."""
    with quiet(), refusals(store.uri):
        run = store.client.get_run(run_id)
        ready_models = [model for model in _models_of(store, run) if model.status == "READY"]
        return f"models:/{ready_models[0].model_id}" if ready_models else None


def model_name(store: Store, model_id: str) -> str:
    """Return the name of a logged model."""
    with refusals(store.uri):
        return str(store.client.get_logged_model(model_id).name)


def _model_of(store: Store, run: Any) -> Any:
    """Return the run's logged model, perhaps one with an unfinished upload; create it where there is none.

    In a run that somebody else began, leave other models alone. MLflow's `Model.log` can't be used: it works on the
    active run and experiment of the process.
    """
    from mlflow.entities import LoggedModelOutput

    outputs = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    linked = []
    for model in _models_of(store, run):
        if model.model_id in outputs:
            linked.append(model)
        else:  # it was created, but never linked
            store.client.delete_logged_model(model.model_id)
    if linked:
        return store.client.get_logged_model(linked[0].model_id)
    model = store.client.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run.info.run_id,
        params=dict(run.data.params),
        tags={ROLE: _OURS},
    )
    store.client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _models_of(store: Store, run: Any) -> list[Any]:
    """Return the logged models of a run that this package made, in any state."""
    is_run_ours = run.data.tags.get("mlflow.source.name") == PROGRAM  # version 0.1 marked runs only
    query = f"source_run_id = '{run.info.run_id}'"
    models = store.client.search_logged_models([run.info.experiment_id], filter_string=query)
    return [model for model in models if is_run_ours or model.tags.get(ROLE) == _OURS]


def _shown(example: Example) -> dict[str, Any]:
    """Return what MLflow logs of an input example: the example and a signature."""
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import Schema, TensorSpec

    inputs_shown: Any = pd.DataFrame({"text": example.inputs})
    if example.dtype:
        inputs_shown = np.array(example.inputs, dtype=example.dtype)
    if example.columns:
        inputs_shown = {
            name: np.array([row[name] for row in example.inputs], dtype=dtype)
            for name, (dtype, _) in example.columns.items()
        }
    answers: Any = example.outputs
    if answers and isinstance(answers[0], (int, float)):
        answers = np.array(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about integers, which can't be missing
        signature = infer_signature(inputs_shown, answers)
    inputs, outputs = signature.inputs, signature.outputs
    if example.dtype:
        inputs = Schema([TensorSpec(np.dtype(example.dtype), (-1, *example.shape))])
    if example.columns:
        columns = example.columns.items()
        inputs = Schema([TensorSpec(np.dtype(dtype), (-1, *shape), name) for name, (dtype, shape) in columns])
    if outputs is not None and "Any" in str(outputs):  # from a picture without any object
        outputs = None
    signature = ModelSignature(inputs, outputs)
    return {"signature": signature, "input_example": inputs_shown}
