"""The experiment of `COMPRESS_EXPERIMENT` is created once and found again."""

from __future__ import annotations

import mlflow
import pytest

from mlflow_compress.plugin.experiment import CompressExperiment
from mlflow_compress.tracking.connection import Store


@pytest.mark.parametrize(("name", "is_named"), [("", False), ("  ", False), ("hw1", True)])
def test_it_has_a_say_only_where_an_experiment_is_named(
    name: str, is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPRESS_EXPERIMENT", name)
    assert CompressExperiment().in_context() is is_named


def test_the_experiment_is_made_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_EXPERIMENT", " made by a provider ")
    mlflow.set_tracking_uri(store.uri)
    try:
        ids = [CompressExperiment().get_experiment_id() for _ in range(2)]
    finally:
        mlflow.set_tracking_uri("")
    experiment = mlflow.MlflowClient(store.uri).get_experiment_by_name("made by a provider")
    assert experiment is not None
    assert ids == [experiment.experiment_id] * 2
