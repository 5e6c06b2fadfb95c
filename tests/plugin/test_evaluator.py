"""MLflow's own evaluation measures a model, and logs to the run and the model."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_compress.errors import CompressError, RecipeError, UnknownName
from mlflow_compress.plugin.evaluator import CompressEvaluator, _plain
from mlflow_compress.records import Selection
from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.query import find

SHORT = {"seconds": 0.0, "iterations": 8, "max_seconds": 1.0, "energy_seconds": 0.0, "threads": 1}
DATA = pd.DataFrame({"length": [1.0, 2.0, 3.0, 4.0], "width": [0.1, 0.2, 0.3, 0.4], "kind": [1, 0, 1, 1]})


@pytest.fixture
def logged(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Log a scikit-learn model that always predicts 1."""
    from sklearn.dummy import DummyClassifier

    mlflow.set_tracking_uri(store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "evaluator")  # set_experiment would affect other tests too
    writing.experiment_id(store, "evaluator")
    features = DATA[["length", "width"]]
    model = DummyClassifier(strategy="constant", constant=1).fit(features, DATA["kind"])
    with mlflow.start_run():
        yield mlflow.sklearn.log_model(
            model,
            name="dummy",
            input_example=features.head(2),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    mlflow.set_tracking_uri("")


def evaluate(uri: str, data: pd.DataFrame = DATA, **settings: Any) -> Any:
    return mlflow.models.evaluate(  # type: ignore[no-untyped-call]
        uri,
        data,
        targets="kind",
        model_type="compress",
        evaluators="compress",
        evaluator_config={"team": "alpha", **SHORT, **settings},
    )


def test_a_model_is_measured_into_the_active_run_and_the_logged_model(logged: Any, store: Store) -> None:
    mlflow.end_run()
    with mlflow.start_run() as run:
        evaluation = evaluate(logged.model_uri)
    assert evaluation.metrics["quality/accuracy"] == 0.75
    assert evaluation.metrics["cpu/latency_p50_ms"] > 0
    client = MlflowClient(store.uri)
    logged_run = client.get_run(run.info.run_id)
    assert logged_run.info.status == "FINISHED"
    assert logged_run.data.metrics == pytest.approx(evaluation.metrics)
    for name in ("cpu/latency_p50_ms", "quality/accuracy"):
        assert len(client.get_metric_history(run.info.run_id, name)) == 1
    linked = {metric.key: metric.value for metric in client.get_logged_model(logged.model_id).metrics or []}
    assert linked == pytest.approx(evaluation.metrics)
    assert {"result.json", "latency.png", "predictions.json"} <= {
        file.path for file in client.list_artifacts(run.info.run_id)
    }
    (row,) = find(["evaluator"], Selection(), [store.uri]).runs
    assert (row.tags["team"], row.tags["model"], row.tags["method"]) == ("alpha", "dummy", "original")
    assert "/tmp" not in row.tags["compress.data"]


def test_two_evaluations_in_one_run_are_two_rows(logged: Any, store: Store) -> None:
    """MLflow logs the numbers of both to the run itself, where they can't be distinguished."""
    mlflow.end_run()
    with mlflow.start_run() as run:
        evaluations = [
            evaluate(logged.model_uri, data, team="twice", model=name).metrics
            for name, data in (("all", DATA), ("three", DATA[1:]))
        ]
    rows = {row.tags["model"]: row for row in find(["evaluator"], Selection(("twice",)), [store.uri]).runs}
    assert {name: dict(row.metrics) for name, row in rows.items()} == {
        name: pytest.approx(metrics) for name, metrics in zip(("all", "three"), evaluations, strict=True)
    }
    assert (evaluations[0]["quality/accuracy"], evaluations[1]["quality/accuracy"]) == (0.75, pytest.approx(2 / 3))
    client = MlflowClient(store.uri)
    for row in rows.values():
        assert client.get_run(row.run_id).data.tags["mlflow.parentRunId"] == run.info.run_id
        assert {"result.json", "predictions.json"} <= {file.path for file in client.list_artifacts(row.run_id)}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"secnds": 1.0}, "Did you mean 'seconds'"),
        ({"threads": "two"}, "must be int"),
        ({"batch_size": True}, "must be int"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(settings: dict[str, Any], error: str) -> None:
    with pytest.raises((UnknownName, RecipeError), match=error):
        CompressEvaluator().evaluate(dataset=None, run_id="", evaluator_config=settings)


def test_a_model_that_was_never_logged_is_refused(tracking_uri: str) -> None:
    with pytest.raises(CompressError, match="Log it first"):
        CompressEvaluator().evaluate(dataset=None, run_id="", model=lambda data: data)


def test_it_is_narrow() -> None:
    from mlflow.models.evaluation import list_evaluators

    assert "compress" in list_evaluators()  # type: ignore[no-untyped-call]
    assert CompressEvaluator.can_evaluate(model_type="compress", evaluator_config={})
    for model_type in ("classifier", "regressor", "text", None, ""):
        assert not CompressEvaluator.can_evaluate(model_type=model_type, evaluator_config={})


def test_numbers_are_written_as_labels_are() -> None:
    import numpy as np

    assert [_plain(number) for number in (np.float64(1.0), 2.5, "1.0", np.int64(3), float("nan"))] == [
        1,
        2.5,
        "1.0",
        3,
        None,
    ]
