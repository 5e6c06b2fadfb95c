"""Measures any MLflow model through `mlflow.models.evaluate(..., model_type="compress", evaluators="compress")`."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.errors import RecipeError, WorkerError
from mlflow_compress.planning.options import Options, from_config

if TYPE_CHECKING:
    from mlflow.models import EvaluationResult

    from mlflow_compress.records import Result, Variant

_TYPE = "compress"
_LABEL = "label"
_DATA = "data.jsonl"
_OTHERS = {"uri": "", "model": ""}  # keys that are not command options: the model's URI, and its name in tables


class CompressEvaluator:
    """MLflow's `ModelEvaluator` for `model_type="compress"`.

    The model is measured as by `compress-bench run models:/...`: fetched, copied, and loaded in separate processes. Its
    quality is scored on the data if that is a data frame with the columns of the model's signature; otherwise it is not
    scored. MLflow itself has already loaded the model, so its code is trusted.

    `evaluator_config` takes `team`, `model` (its name in tables), `method`, `device`, `batch_size`, `threads`, `limit`,
    `seed`, `iterations`, `seconds`, `max_seconds`, `energy_seconds`, `score_seconds`, `timeout`, `launches`, as
    `compress-bench run` does, and `uri`: the URI of a model that is only a folder.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str | None = None, evaluator_config: Any = None, **more: Any) -> bool:
        """Return whether this evaluator is meant: MLflow asks all evaluators when none is named."""
        return model_type == _TYPE

    def evaluate(
        self,
        *,
        dataset: Any,
        run_id: str,
        model_type: str = _TYPE,
        evaluator_config: Mapping[str, Any] | None = None,
        model: Any = None,
        model_id: str | None = None,
        **more: Any,
    ) -> EvaluationResult:
        """Measure the model, and log to the run, and to the logged model where MLflow has one.

        Raises:
            RecipeError: an option is unknown, or the model was never logged.
            WorkerError: the model could not be measured; the run states this too.
            StoreError: MLflow refuses the result.
        """
        from mlflow.models import EvaluationResult

        from mlflow_compress.measuring import isolate
        from mlflow_compress.measuring.measure_one import measure_one
        from mlflow_compress.planning import requirements
        from mlflow_compress.records import finite
        from mlflow_compress.tracking import models
        from mlflow_compress.tracking.connection import open_store
        from mlflow_compress.tracking.sending import write_into_open_run

        options, settings = from_config(evaluator_config or {}, _OTHERS)
        requirements.require_device(options.device)
        logged_id = model_id or getattr(getattr(model, "metadata", None), "model_id", None) or ""
        uri = settings["uri"] or (f"models:/{logged_id}" if logged_id else "")
        if not uri:
            raise RecipeError(
                "This model was never logged, so no other process can load it. Log it first (log_model), or give "
                "evaluator_config={'uri': FOLDER} of a saved model."
            )
        store = open_store()
        fetched_models = models.FetchedModels(store)
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as name:
            folder = Path(name)
            variant = _variant(uri, options, settings["model"], _written(dataset, model, folder))
            fetched = None
            if not settings["uri"]:
                variant = dataclasses.replace(variant, model=settings["model"] or models.model_name(store, logged_id))
                fetched = fetched_models.path(uri)
            work = folder / "work"
            work.mkdir()
            result = measure_one(variant, work, lambda event: None, lambda text: None, fetched=fetched)
            result = _renamed(result, dataset)
            params = {name: str(value) for name, value in settings.items() if value and name not in ("uri", "model")}
            tables = isolate.tables(work)
            logged_to = write_into_open_run(store, run_id, result, tables, asked=params, with_metrics=not model_id)
        if logged_id and not model_id:  # MLflow links the metrics of a model named as models:/ID itself
            models.link(store, logged_to, logged_id, result)
        if result.status != "ok":
            raise WorkerError(result.reason)
        return EvaluationResult(finite(result.measurements), {}, run_id=logged_to)  # type: ignore[no-untyped-call]


def _renamed(result: Result, dataset: Any) -> Result:
    """Rename the data to MLflow's name for it, instead of the file that it was written to."""
    name = str(getattr(dataset, "name", None) or "dataset")
    facts = {key: name if key in ("data", "data_name", "data_source") else text for key, text in result.facts.items()}
    variant = dataclasses.replace(result.variant, data=name if result.variant.data else None)
    return dataclasses.replace(result, variant=variant, facts=facts)


def _variant(uri: str, options: Options, name: str, data: Path | None) -> Variant:
    """Plan the measurement as the command line does, and return the variant."""
    from mlflow_compress.data.spec import Data
    from mlflow_compress.planning import chains, recipe

    options = dataclasses.replace(options, trust=True, data=str(Data(str(data))) if data else "none")
    chain = chains.parse_chain(options.method)
    (variant,) = recipe.plan(recipe.read(uri), [(chains.chain_name(chain), chain)], options.settings())
    return dataclasses.replace(variant, model=name or variant.model)


def _written(dataset: Any, model: Any, folder: Path) -> Path | None:
    """Write the data as rows of the signature's columns and `label`; return None without labels or such columns.

    Raises:
        RecipeError: the data lacks a column of the signature.
    """
    labels = getattr(dataset, "labels_data", None)
    signature = getattr(getattr(model, "metadata", None), "signature", None)
    if labels is None or signature is None or signature.inputs is None or not signature.inputs.has_input_names():
        return None
    if signature.inputs.is_tensor_spec():
        return None
    columns = [str(name) for name in signature.inputs.input_names()]
    rows = _rows(dataset.features_data, columns)
    path = folder / _DATA
    with path.open("w", encoding="utf-8") as file:
        for row, label in zip(rows, labels, strict=True):
            file.write(json.dumps({**row, _LABEL: _plain(label)}, ensure_ascii=False) + "\n")
    return path


def _rows(features: Any, columns: Sequence[str]) -> list[dict[str, Any]]:
    if hasattr(features, "columns"):
        if missing := [name for name in columns if name not in features.columns]:
            raise RecipeError(f"The data lacks the columns of the model's signature: {', '.join(missing)}.")
        features = features[list(columns)].to_numpy(dtype=object)
    return [dict(zip(columns, map(_plain, row), strict=True)) for row in features]


def _plain(value: Any) -> Any:
    """Convert a number from numpy to Python; a whole float becomes an int, as predictions of labels do."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value if math.isfinite(value) else None
    return value
