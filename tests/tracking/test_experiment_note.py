"""The description of an experiment that leads to its comparison."""

from __future__ import annotations

import pytest

from mlflow_compress.tracking import experiment_note, reading, writing
from mlflow_compress.tracking.connection import Store, open_store


def note(store: Store, experiment_id: str) -> str:
    return str(store.client.get_experiment(experiment_id).tags.get("mlflow.note.content", ""))


def test_a_store_without_our_page_is_told_the_command(store: Store) -> None:
    number = writing.experiment_id(store, "described one")
    experiment_note.describe(store, number, "described one")
    assert note(store, number) == "The comparison of these runs: `compress-report --experiment 'described one'`"
    store.client.set_experiment_tag(number, "mlflow.note.content", "what its user wrote")
    experiment_note.describe(store, number, "described one")
    assert note(store, number) == "what its user wrote"


def test_a_server_with_our_page_is_linked_even_where_it_had_none_before(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(served)
    number = writing.experiment_id(store, "described & linked")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "has_page", lambda store, experiment_id: False)
        experiment_note.describe(store, number, "described & linked")
    assert "compress-report" in note(store, number)
    experiment_note.describe(store, number, "described & linked")
    address = f"{served}/compress?experiment=described+%26+linked"
    assert note(store, number) == f"[The comparison of these runs]({address})"
